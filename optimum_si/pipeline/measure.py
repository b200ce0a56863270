"""What became of a block, in the numbers that a report keeps."""

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import PLAIN, Layer, Scaling, naming
from optimum_si.algorithms.pruning.targets import NM, Target
from optimum_si.errors import NumericalError
from optimum_si.linalg.histograms import (
    BINS,
    HIGH,
    LOW,
    affordable,
    relative_histogram,
    sampled_singular_values,
    spread_positions,
)
from optimum_si.linalg.units import unit_of
from optimum_si.report import BlockReport, Importance, LayerReport, Spectrum

from .plan import Plan


#: Tokens on which a layer's output error is reported.
ERROR_TOKENS = 512

#: Weights of a layer whose scores are counted: more would take time and change no bin by a thousandth.
SCORED_WEIGHTS = 2**20

#: What stands for an error that overflows.
LARGEST = 1e30


def block_report(plan: Plan, state: BlockState) -> BlockReport:
    """The numbers of one block; ``seconds`` and what was absorbed are not known yet."""
    plain, chosen = _all_finite(state.losses) or (None, None)
    name = "plain" if state.scaling is None else state.scaling.name
    layers = [_layer_report(plan, state, layer) for layer in state.layers]
    return BlockReport(state.name, name, plain, chosen, 0.0, layers, _importance(state), _all_finite(state.refinement))


def _layer_report(plan: Plan, state: BlockState, layer: Layer) -> LayerReport:
    name, sample = layer.view.name, state.sample(layer)
    sample = sample[:: -(-len(sample) // ERROR_TOKENS)].to(layer.weight.dtype)
    plain, weights, fit = state.plain_weights, state.weights, state.fits.get(layer.view.name)
    scale = None if state.scaling is None else state.column_factor(state.scaling.scales, layer)
    low, median, high = (None, None, None) if scale is None else map(float, (scale.min(), scale.median(), scale.max()))
    p10, p90 = (None, None) if scale is None else _tenths(scale)
    return LayerReport(
        name,
        layer.view.shape,
        layer.target.sparsity,
        float((weights[name][0] == 0).double().mean()) if plan.write else None,
        # A layer that fell back has none.
        None if plain is None or name not in plain else output_error(layer, sample, *plain[name]),
        output_error(layer, sample, *weights[name]),
        low,
        median,
        high,
        pattern=_own_pattern(layer.target, plan.config.pattern),
        repair=None if fit is None else fit.repair,
        damping=None if fit is None else fit.damping,
        fallback=state.fallbacks.get(name),
        scale_p10=p10,
        scale_p90=p90,
    )


def _own_pattern(target: Target, pattern: str | None) -> str | None:
    """A layer's pattern where it is not the run's."""
    own = f"{target.kept}:{target.of}" if isinstance(target, NM) else None
    return None if own == pattern else own


def output_error(layer: Layer, sample: Tensor, weight: Tensor, bias: Tensor | None) -> float:
    """||X (W - W')^T + b - b'||^2 / ||X W^T||^2 on sampled tokens X [n, d_in]."""
    of_sample, of_weight = unit_of(sample), unit_of(layer.weight)
    sample, dense = sample / of_sample, layer.weight / of_weight
    difference = sample @ (dense - weight / of_weight).T
    if bias is not None and layer.bias is not None:
        difference = difference + (layer.bias - bias) / of_sample / of_weight
    norm = (sample @ dense.T).square().sum()
    return _finite(float(difference.square().sum() / norm.clamp_min(1e-30)))


def _all_finite(values: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if values is None else (_finite(values[0]), _finite(values[1]))


def _finite(value: float) -> float:
    """What JSON can hold: an error beyond all bounds is the largest number."""
    return min(value, LARGEST) if value == value else LARGEST


def _importance(state: BlockState) -> Importance | None:
    """How the block's scores are spread with the plain method, and with the scales that were chosen."""
    if not state.layers:
        return None
    try:
        before = _histogram(state, PLAIN)
        after = None if state.scaling is None or state.scaling is PLAIN else _rounded(_histogram(state, state.scaling))
    except NumericalError:  # a layer that was pruned with more damping has no score without it
        return None
    return Importance(LOW, HIGH, _rounded(before), after)


def _histogram(state: BlockState, scaling: Scaling) -> Tensor:
    """Shares of the block's weights in each bin, fp64 [BINS]; a layer counts by its size."""
    total = torch.zeros(BINS, dtype=torch.float64)
    for layer in state.layers:
        rows, columns = layer.weight.shape
        every = -(-rows // max(SCORED_WEIGHTS // columns, 1))
        row_scale = state.row_factor(scaling.scales, layer)
        with naming(layer.view):
            score = state.method.scaled_score(
                layer.weight[::every] / unit_of(layer.weight),
                layer.scored_moments(scaling.shifted),
                state.column_factor(scaling.scales, layer),
                None if row_scale is None else row_scale[::every],
            )
        total += relative_histogram(score, layer.target.shares_rows).cpu() * layer.weight.numel()
    return total / sum(layer.weight.numel() for layer in state.layers)


def spectrum(state: BlockState) -> Spectrum | None:
    """Singular values of the block's smallest layer, dense and pruned; None where they cost too much."""
    if not state.layers:
        return None
    layer = min(state.layers, key=lambda layer: layer.weight.numel())
    if not affordable(*layer.weight.shape):
        return None
    positions, unit = spread_positions(min(layer.weight.shape)), unit_of(layer.weight)
    try:
        dense, pruned = (
            _significant(sampled_singular_values(weight / unit, positions).double() * unit)
            for weight in (layer.weight, state.weights[layer.view.name][0])
        )
    except torch.linalg.LinAlgError:  # weights so badly scaled that the iteration does not converge
        return None
    return Spectrum(layer.view.name, positions.tolist(), dense, pruned)


def _tenths(values: Tensor) -> tuple[float, float]:
    """What a tenth of the values is below, and above."""
    low, high = torch.quantile(values.float(), torch.tensor([0.1, 0.9], device=values.device)).tolist()
    return low, high


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


def _significant(values: Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]
