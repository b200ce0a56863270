"""How many zeros each layer gets, decided in one pass over the dense model before anything is pruned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from optimum_si.algorithms.layers import naming
from optimum_si.algorithms.pruning import get_method
from optimum_si.algorithms.pruning.method import Settings
from optimum_si.algorithms.pruning.targets import NM, Target
from optimum_si.algorithms.reconstruction.least_squares import DampedGram, LeastSquares
from optimum_si.config.si_config import SIConfig
from optimum_si.linalg.damping import safe_damping
from optimum_si.linalg.moments import Moments
from optimum_si.models.forward.dense_pass import DensePass
from optimum_si.models.weight_view import WeightView

from .budget import Part, by_errors, by_outliers, whole_zeros


#: How far a layer may be from the target, by errors and by outliers (lambda of OWL). A pattern goes a step at least.
BAND, OUTLIER_BAND = 0.15, 0.08
#: No layer has a larger fraction of zeros, unless the target has.
MOST = 0.99
#: A score is an outlier that is so many times the mean of its layer.
OUTLIER = 5
#: Fractions of zeros at which errors are measured, and rows on which: errors of rows are much alike.
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


def allocate(
    config: SIConfig, targets: Mapping[str, Target], may_shift: Callable[[WeightView], bool], dense_pass: DensePass
) -> dict[str, Target]:
    """A target for each layer, by the name of its view; together they have the zeros of the uniform target.

    Exactly as many in group "layer". In group "row" all rows of a layer have as many zeros as each other: then just as
    many for methods that count rows, and for SparseGPT to within half of what all numbers of rows are multiples of
    (but for few layers with odd numbers of rows, see :func:`whole_zeros`). With a pattern, whose N changes for a layer
    as a whole, as many or a little more: never more non-zeros than the uniform pattern has.
    Layers that the calibration data never reaches keep the uniform target.

    Args:
        config: the recipe.
        targets: the uniform target of every layer.
        may_shift: whether the run may change the bias of a layer.
        dense_pass: over the dense model.
    """
    if not targets:
        return {}
    uniform = next(iter(targets.values()))
    width = OUTLIER_BAND if config.allocation == "owl" else BAND
    levels = _levels(uniform, width)
    layers = _surveyed(config, may_shift, dense_pass, [uniform.with_sparsity(level) for level in levels])
    if not layers:
        return dict(targets)
    of_sparsities = _by_outliers if config.allocation == "owl" else _by_errors
    sparsities = of_sparsities(layers, uniform, levels)
    parts = [_part(uniform, layer.shape, levels) for layer in layers]
    budget = sum(_uniform_zeros(config, uniform, layer.shape) for layer in layers)
    zeros = whole_zeros(sparsities, [layer.size for layer in layers], parts, budget, fewer=not isinstance(uniform, NM))
    allocated = dict(targets)
    for layer, count in zip(layers, zeros, strict=True):
        allocated[layer.name] = uniform.with_sparsity(count / layer.size)
        allocated[layer.name].check(layer.name, layer.shape[1])
    return allocated


def _levels(uniform: Target, width: float) -> list[float]:
    """Fractions of zeros from the least to the largest that a layer may get, ascending."""
    sparsity = uniform.sparsity
    if isinstance(uniform, NM):
        reach = max(int(width * uniform.of), 1)
        most, fewest = min(uniform.kept + reach, uniform.of - 1), max(uniform.kept - reach, 1)
        return [1 - kept / uniform.of for kept in range(most, fewest - 1, -1)]
    low, high = max(sparsity - width, 0.0), max(min(sparsity + width, MOST), sparsity)
    return [low + (high - low) * step / (LEVELS - 1) for step in range(LEVELS)]


def _surveyed(
    config: SIConfig, may_shift: Callable[[WeightView], bool], dense_pass: DensePass, targets: Sequence[Target]
) -> list[_Surveyed]:
    """Every layer that the calibration data reaches, in forward order."""
    layers = []
    for index, _, layer_inputs in dense_pass.run():
        for view, moments in ((view, found.moments) for found in layer_inputs for view in found.views):
            if may_shift(view):
                moments = moments.transformed(shift=moments.mean)
            weight = view.read()
            weight = weight if weight.dtype == torch.float64 else weight.float()
            by_outliers = config.allocation == "owl"
            with naming(view):
                found = [_outliers(weight, moments)] if by_outliers else _curve(config, weight, moments, targets)
            layers.append(_Surveyed(view.name, index, view.shape, found))
    return layers


def _outliers(weight: Tensor, moments: Moments) -> float:
    """Fraction of Wanda's scores that are outliers."""
    score = weight.double().abs() * moments.diagonal.sqrt()
    return float((score > OUTLIER * score.mean()).double().mean())


def _curve(config: SIConfig, weight: Tensor, moments: Moments, targets: Sequence[Target]) -> list[float]:
    """Squared error of a layer's output at each target, relative to that output, on some of its rows.

    That of the method's mask, after a rough fit where the run fits at all. SparseGPT's own repair is left out: errors
    that it leaves are much the same in all layers, and say less of what the model loses.
    """
    assert moments.gram is not None
    method = get_method(config.method)(Settings.of(config))
    weight = weight[:: -(-len(weight) // ROWS)]
    score = method.score(weight, moments).masked_fill(weight == 0, -1)
    gram = moments.gram.to(weight.dtype)
    damping = safe_damping(config.damping, moments.count, len(gram))
    squares = LeastSquares.of(weight, DampedGram.of(moments.gram, damping, config.damping_mode, weight.dtype))
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
    """Fraction of zeros of each layer, alike within a block, by the block's fraction of outliers."""
    sizes: dict[int, int] = {}
    outliers: dict[int, float] = {}
    for layer in layers:
        sizes[layer.block] = sizes.get(layer.block, 0) + layer.size
        outliers[layer.block] = outliers.get(layer.block, 0.0) + layer.found[0] * layer.size
    ratios = [outliers[block] / size for block, size in sizes.items()]
    width = min(uniform.sparsity - levels[0], levels[-1] - uniform.sparsity)
    of_block = dict(zip(sizes, by_outliers(ratios, list(sizes.values()), uniform.sparsity, width), strict=True))
    return [of_block[layer.block] for layer in layers]


def _by_errors(layers: Sequence[_Surveyed], uniform: Target, levels: Sequence[float]) -> list[float]:
    """Fraction of zeros of each layer for the smallest sum of relative errors.

    A layer counts by the root of its size: alike, large layers would lose too much, and by size, small ones (both
    measured).
    """
    sizes = [layer.size for layer in layers]
    curves = [[error * sqrt(layer.size) for error in layer.found] for layer in layers]
    return by_errors(levels, curves, sizes, uniform.sparsity)


def _part(uniform: Target, shape: tuple[int, int], levels: Sequence[float]) -> Part:
    """What a layer allows; always the uniform target."""
    lowest, highest = (uniform.with_sparsity(level).zeros(*shape) for level in (levels[0], levels[-1]))
    return Part(uniform.granularity(*shape), lowest, highest)


def _uniform_zeros(config: SIConfig, uniform: Target, shape: tuple[int, int]) -> int:
    """Zeros that the uniform target gives to a layer with the run's method."""
    if isinstance(uniform, NM) or get_method(config.method).counts_rows:
        return uniform.zeros(*shape)
    return round(uniform.sparsity * shape[0] * shape[1])
