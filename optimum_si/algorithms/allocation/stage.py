"""How many zeros each layer gets, decided on the dense model before anything is pruned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optimum_si.algorithms.layers import naming
from optimum_si.algorithms.pruning import get_method
from optimum_si.algorithms.pruning.method import Settings
from optimum_si.algorithms.pruning.targets import NM, Target
from optimum_si.config.si_config import SIConfig
from optimum_si.linalg.moments import Moments
from optimum_si.models.forward.dense_pass import DensePass
from optimum_si.models.weight_view import WeightView

from .budget import Part, by_errors, by_outliers, whole_zeros
from .sensitivity import Sensitivity, sensitivities


#: How far a layer may be from the target, by errors and by outliers (lambda of OWL). A pattern goes a step at least.
BAND, OUTLIER_BAND = 0.15, 0.08
#: No layer has a larger fraction of zeros, unless the target has.
MOST = 0.99
#: A score is an outlier that is so many times the mean of its layer.
OUTLIER = 5
#: No output counts less than so much of the mean of its layer: what was measured is noisy.
LEAST = 1e-3
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


@dataclass(frozen=True, eq=False)
class Allocation:
    """What each layer gets, by the name of its view.

    Args:
        targets: how much of it goes, and where.
        row_importance: what its rows are multiplied by where they are ranked together, [d_out]: the root of what an
            error of each output costs. Empty where that was not measured.
    """

    targets: Mapping[str, Target]
    row_importance: Mapping[str, Tensor]


def allocate(
    config: SIConfig,
    targets: Mapping[str, Target],
    may_shift: Callable[[WeightView], bool],
    dense_pass: DensePass,
    examples: Sequence[Mapping[str, Tensor]],
) -> Allocation:
    """A target for each layer; together they have the zeros of the uniform target.

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
        examples: of calibration.
    """
    if not targets:
        return Allocation({}, {})
    uniform = next(iter(targets.values()))
    width = OUTLIER_BAND if config.allocation == "owl" else BAND
    levels = _levels(uniform, width)
    importance: dict[str, Tensor] = {}
    if config.allocation == "owl":
        layers = _outlying(may_shift, dense_pass)
    else:
        rising = [uniform.with_sparsity(level) for level in levels]
        layers, importance = _erring(config, may_shift, dense_pass, examples, rising)
    if not layers:
        return Allocation(targets, importance)
    sparsities = (_by_outliers if config.allocation == "owl" else _by_errors)(layers, uniform, levels)
    parts = [_part(uniform, layer.shape, levels) for layer in layers]
    budget = sum(_uniform_zeros(config, uniform, layer.shape) for layer in layers)
    zeros = whole_zeros(sparsities, [layer.size for layer in layers], parts, budget, fewer=not isinstance(uniform, NM))
    allocated = dict(targets)
    for layer, count in zip(layers, zeros, strict=True):
        allocated[layer.name] = uniform.with_sparsity(count / layer.size)
        allocated[layer.name].check(layer.name, layer.shape[1])
    return Allocation(allocated, importance)


def _levels(uniform: Target, width: float) -> list[float]:
    """Fractions of zeros from the least to the largest that a layer may get, ascending."""
    sparsity = uniform.sparsity
    if isinstance(uniform, NM):
        reach = max(int(width * uniform.of), 1)
        most, fewest = min(uniform.kept + reach, uniform.of - 1), max(uniform.kept - reach, 1)
        return [1 - kept / uniform.of for kept in range(most, fewest - 1, -1)]
    low, high = max(sparsity - width, 0.0), max(min(sparsity + width, MOST), sparsity)
    return [low + (high - low) * step / (LEVELS - 1) for step in range(LEVELS)]


def _outlying(may_shift: Callable[[WeightView], bool], dense_pass: DensePass) -> list[_Surveyed]:
    """Every layer that the calibration data reaches, in forward order, with its outliers."""
    return [
        _Surveyed(
            view.name, index, view.shape, [_outliers(_wide(view.read()), _scored(view, found.moments, may_shift))]
        )
        for index, _, layer_inputs in dense_pass.run(gram=False)
        for found in layer_inputs
        for view in found.views
    ]


def _erring(
    config: SIConfig,
    may_shift: Callable[[WeightView], bool],
    dense_pass: DensePass,
    examples: Sequence[Mapping[str, Tensor]],
    targets: Sequence[Target],
) -> tuple[list[_Surveyed], dict[str, Tensor]]:
    """Every layer that some of the examples reach, in forward order, with what it costs at each target, and the
    importance of its rows."""
    blocks = [block.module for block in dense_pass.blocks]
    placed = [(index, view) for index, views in enumerate(dense_pass.views) for view in views.values()]
    found = sensitivities(dense_pass.model, blocks, [view for _, view in placed], examples, config.seed)
    importance = {name: _importance(sensitivity) for name, sensitivity in found.items()}
    layers = []
    for index, view in placed:
        if view.name in found:
            with naming(view):
                curve = _curve(config, view, found[view.name], importance[view.name], may_shift, targets)
            layers.append(_Surveyed(view.name, index, view.shape, curve))
    return layers, importance


def _importance(sensitivity: Sensitivity) -> Tensor:
    """Root of what an error of each output costs, fp32, 1 for the mean; one that nothing reads keeps a little."""
    curvature = sensitivity.curvature
    relative = curvature / curvature.mean().clamp_min(torch.finfo(curvature.dtype).tiny)
    return relative.clamp_min(LEAST).sqrt().float()


def _wide(weight: Tensor) -> Tensor:
    return weight if weight.dtype == torch.float64 else weight.float()


def _scored(view: WeightView, moments: Moments, may_shift: Callable[[WeightView], bool]) -> Moments:
    """Moments that a layer is scored with: a bias that may change makes up for the mean of what is lost."""
    return moments.transformed(shift=moments.mean) if may_shift(view) else moments


def _outliers(weight: Tensor, moments: Moments) -> float:
    """Fraction of Wanda's scores that are outliers."""
    score = weight.double().abs() * moments.diagonal.sqrt()
    return float((score > OUTLIER * score.mean()).double().mean())


def _curve(
    config: SIConfig,
    view: WeightView,
    sensitivity: Sensitivity,
    importance: Tensor,
    may_shift: Callable[[WeightView], bool],
    targets: Sequence[Target],
) -> list[float]:
    """What the zeros of a layer cost the model's answers at each target, measured on some of its rows.

    Each zero for itself and before any fit, whose gain is much the same in all layers (measured).
    """
    step = -(-view.shape[0] // ROWS)
    weight, some = _wide(view.read()[::step]), importance[::step]
    moments = _scored(view, sensitivity.moments, may_shift)
    costs = some.double().square()[:, None] * weight.double().square() * moments.diagonal
    method = get_method(config.method)(Settings.of(config))
    # What needs a Gram matrix ranks much as these costs do.
    by_method = None if method.needs_gram else method.scaled_score(weight, moments, row_scale=some)
    score = (costs if by_method is None else by_method).masked_fill(weight == 0, -1)
    # A few outputs may be most of what counts, among these rows or not: these rows stand for all by their share of it.
    whole = float(sensitivity.curvature.sum() / some.double().square().sum())
    return [whole * float(costs[~target.keep(score)].sum()) for target in targets]


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
    """Fraction of zeros of each layer for the smallest sum of errors."""
    return by_errors(levels, [layer.found for layer in layers], [layer.size for layer in layers], uniform.sparsity)


def _part(uniform: Target, shape: tuple[int, int], levels: Sequence[float]) -> Part:
    """What a layer allows; always the uniform target."""
    lowest, highest = (uniform.with_sparsity(level).zeros(*shape) for level in (levels[0], levels[-1]))
    return Part(uniform.granularity(*shape), lowest, highest)


def _uniform_zeros(config: SIConfig, uniform: Target, shape: tuple[int, int]) -> int:
    """Zeros that the uniform target gives to a layer with the run's method."""
    if isinstance(uniform, NM) or get_method(config.method).counts_rows:
        return uniform.zeros(*shape)
    return round(uniform.sparsity * shape[0] * shape[1])
