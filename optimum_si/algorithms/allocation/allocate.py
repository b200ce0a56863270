"""How many zeros each layer gets, decided in one pass over the dense model before anything is pruned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import naming
from optimum_si.algorithms.pruning import get_method
from optimum_si.algorithms.pruning.targets import NM, Target
from optimum_si.algorithms.reconstruction.least_squares import LeastSquares
from optimum_si.linalg.moments import Moments
from optimum_si.models.forward.dense_pass import survey
from optimum_si.models.forward.streams import Stream
from optimum_si.models.structure import Block
from optimum_si.models.weight_view import WeightView
from optimum_si.pipeline.block import BlockStep

from .budget import Part, by_errors, by_outliers, whole_zeros


#: How far a layer may be from the target, by errors and by outliers (lambda of OWL). A pattern goes a step at least.
BAND, OUTLIER_BAND = 0.15, 0.08
#: No layer has a larger share of zeros, unless the target has.
MOST = 0.99
#: A score is an outlier that is so many times the mean of its layer.
OUTLIER = 5
#: Shares of zeros at which errors are measured, and rows on which: errors of rows are much alike.
LEVELS, ROWS = 7, 64


@dataclass(frozen=True)
class _Surveyed:
    """One layer: its name, block and [rows, columns], and the outlier ratio, or the error at each level."""

    name: str
    block: int
    shape: tuple[int, int]
    found: list[float]

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1]


def allocated(
    step: BlockStep, blocks: Sequence[Block], views: Sequence[Mapping[str, WeightView]], stream: Stream
) -> dict[str, Target]:
    """A target for each layer, by the name of its view; together they have the zeros of the uniform target.

    Exactly as many in group "layer". In group "row" all rows of a layer have as many zeros as each other: then just as
    many for methods that count rows, and for SparseGPT to within half of what all numbers of rows are multiples of
    (but for few layers with odd numbers of rows, see :func:`whole_zeros`). With a pattern, whose N changes for a layer
    as a whole, as many or a little more: never more non-zeros than the uniform pattern has.
    Layers that the calibration data never reaches keep the uniform target.

    Args:
        step: holds the recipe, and the uniform target of every layer.
        blocks: of the model, dense.
        views: for each block, the weights to prune, by name inside the block.
        stream: inputs of the first block; it stays as it is.
    """
    if not step.targets:
        return {}
    uniform = next(iter(step.targets.values()))
    width = OUTLIER_BAND if step.config.allocation == "owl" else BAND
    levels = _levels(uniform, width)
    layers = _surveyed(step, blocks, views, stream, [uniform.with_share(level) for level in levels])
    if not layers:
        return dict(step.targets)
    of_shares = _by_outliers if step.config.allocation == "owl" else _by_errors
    shares = of_shares(layers, uniform, levels)
    parts = [_part(uniform, layer.shape, levels) for layer in layers]
    budget = sum(_uniform_zeros(step, uniform, layer.shape) for layer in layers)
    zeros = whole_zeros(shares, [layer.size for layer in layers], parts, budget, fewer=not isinstance(uniform, NM))
    targets = dict(step.targets)
    for layer, count in zip(layers, zeros, strict=True):
        targets[layer.name] = uniform.with_share(count / layer.size)
        targets[layer.name].check(layer.name, layer.shape[1])
    return targets


def _levels(uniform: Target, width: float) -> list[float]:
    """Shares of zeros from the least to the largest that a layer may get, ascending."""
    share = uniform.share
    if isinstance(uniform, NM):
        reach = max(int(width * uniform.of), 1)
        most, fewest = min(uniform.kept + reach, uniform.of - 1), max(uniform.kept - reach, 1)
        return [1 - kept / uniform.of for kept in range(most, fewest - 1, -1)]
    low, high = max(share - width, 0.0), max(min(share + width, MOST), share)
    return [low + (high - low) * step / (LEVELS - 1) for step in range(LEVELS)]


def _surveyed(
    step: BlockStep,
    blocks: Sequence[Block],
    views: Sequence[Mapping[str, WeightView]],
    stream: Stream,
    targets: Sequence[Target],
) -> list[_Surveyed]:
    """Every layer that the calibration data reaches, in forward order."""
    by_outliers = step.config.allocation == "owl"
    layers = []
    for number, sites in survey(blocks, views, stream):
        shifted = {view.name for local, view in views[number].items() if step.may_shift(blocks[number], local, view)}
        for view, moments in ((view, site.moments) for site in sites for view in site.views):
            if view.name in shifted:
                moments = moments.transformed(shift=moments.mean)
            weight = view.read()
            weight = weight if weight.dtype == torch.float64 else weight.float()
            with naming(view):
                found = [_outliers(weight, moments)] if by_outliers else _curve(step, weight, moments, targets)
            layers.append(_Surveyed(view.name, number, view.shape, found))
    return layers


def _outliers(weight: Tensor, moments: Moments) -> float:
    """Share of Wanda's scores that are outliers."""
    score = weight.double().abs() * moments.diagonal.sqrt()
    return float((score > OUTLIER * score.mean()).double().mean())


def _curve(step: BlockStep, weight: Tensor, moments: Moments, targets: Sequence[Target]) -> list[float]:
    """Squared error of a layer's output at each target, relative to that output, on some of its rows.

    That of the method's mask, after a rough fit where the run fits at all. SparseGPT's own repair is left out: errors
    that it leaves are much the same in all layers, and say less of what the model loses.
    """
    assert moments.gram is not None
    config = step.config
    method = get_method(config.method)(step.method.settings)
    weight = weight[:: -(-len(weight) // ROWS)]
    score = method.score(weight, moments).masked_fill(weight == 0, -1)
    gram = moments.gram.to(weight.dtype)
    squares = LeastSquares.of(weight, gram, config.damping, mode=config.damping_mode)
    errors = []
    for target in targets:
        kept = target.keep(score)
        pruned = weight * kept if config.reconstruction == "none" else squares.out_of(squares.exact(kept, rough=True))
        errors.append(_energy(weight - pruned, gram))
    whole = max(_energy(weight, gram), torch.finfo(torch.float64).tiny)
    return [error / whole for error in errors]


def _energy(weight: Tensor, gram: Tensor) -> float:
    """E||W x||^2."""
    return float(((weight @ gram) * weight).sum(dtype=torch.float64))


def _by_outliers(layers: Sequence[_Surveyed], uniform: Target, levels: Sequence[float]) -> list[float]:
    """Share of zeros of each layer, alike within a block, by the block's share of outliers."""
    sizes: dict[int, int] = {}
    outliers: dict[int, float] = {}
    for layer in layers:
        sizes[layer.block] = sizes.get(layer.block, 0) + layer.size
        outliers[layer.block] = outliers.get(layer.block, 0.0) + layer.found[0] * layer.size
    ratios = [outliers[block] / size for block, size in sizes.items()]
    width = min(uniform.share - levels[0], levels[-1] - uniform.share)
    of_block = dict(zip(sizes, by_outliers(ratios, list(sizes.values()), uniform.share, width), strict=True))
    return [of_block[layer.block] for layer in layers]


def _by_errors(layers: Sequence[_Surveyed], uniform: Target, levels: Sequence[float]) -> list[float]:
    """Share of zeros of each layer for the smallest sum of relative errors.

    A layer counts by the root of its size: alike, large layers would lose too much, and by size, small ones (both
    measured).
    """
    sizes = [layer.size for layer in layers]
    curves = [[error * sqrt(layer.size) for error in layer.found] for layer in layers]
    return by_errors(levels, curves, sizes, uniform.share)


def _part(uniform: Target, shape: tuple[int, int], levels: Sequence[float]) -> Part:
    """What a layer allows; always the uniform target."""
    lowest, highest = (uniform.with_share(level).zeros(*shape) for level in (levels[0], levels[-1]))
    return Part(uniform.grain(*shape), lowest, highest)


def _uniform_zeros(step: BlockStep, uniform: Target, shape: tuple[int, int]) -> int:
    """Zeros that the uniform target gives to a layer with the run's method."""
    if isinstance(uniform, NM) or get_method(step.config.method).counts_rows:
        return uniform.zeros(*shape)
    return round(uniform.share * shape[0] * shape[1])
