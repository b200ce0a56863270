"""What became of a block, in the numbers that a report keeps."""

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockProblem, Candidate, Layer, Weights, naming
from optimum_si.linalg.histograms import (
    BINS,
    HIGH,
    LOW,
    affordable,
    relative_histogram,
    sampled_singular_values,
    spread_positions,
)
from optimum_si.report.report import Importance, LayerReport, Spectrum


#: Tokens on which a layer's output error is reported.
ERROR_TOKENS = 512

#: Weights of a layer whose scores are counted: more would take time and change no bin by a thousandth.
SCORED_WEIGHTS = 2**20


def layer_report(
    problem: BlockProblem,
    layer: Layer,
    sample: Tensor,
    plain: Weights | None,
    weights: Weights,
    candidate: Candidate | None,
    written: bool,
) -> LayerReport:
    """The numbers of one layer.

    Args:
        problem: its block.
        layer: the layer, dense.
        sample: tokens of its input, [n, d_in].
        plain: what the plain method gives; None in a run without induction.
        weights: what the run gives.
        candidate: the scales that these were pruned by, or None.
        written: False where nothing is pruned (``induce``).
    """
    name = layer.view.name
    sample = sample[:: -(-len(sample) // ERROR_TOKENS)].to(layer.weight.dtype)
    scale = None if candidate is None else problem.column_factor(candidate.scales, layer)
    low, median, high = (None, None, None) if scale is None else map(float, (scale.min(), scale.median(), scale.max()))
    p10, p90 = (None, None) if scale is None else _tenths(scale)
    return LayerReport(
        name,
        layer.view.shape,
        layer.target.share,
        float((weights[name][0] == 0).double().mean()) if written else None,
        None if plain is None else output_error(layer, sample, *plain[name]),
        output_error(layer, sample, *weights[name]),
        low,
        median,
        high,
        scale_p10=p10,
        scale_p90=p90,
    )


def output_error(layer: Layer, sample: Tensor, weight: Tensor, bias: Tensor | None) -> float:
    """||X (W - W')^T + b - b'||^2 / ||X W^T||^2 on sampled tokens X [n, d_in]."""
    difference = sample @ (layer.weight - weight).T
    if bias is not None and layer.bias is not None:
        difference = difference + (layer.bias - bias)
    return float(difference.square().sum() / (sample @ layer.weight.T).square().sum().clamp_min(1e-30))


def importance(problem: BlockProblem, candidate: Candidate | None) -> Importance | None:
    """How the block's scores are spread with the plain method, and with the scales that were chosen."""
    if not problem.layers:
        return None
    before = _histogram(problem, Candidate({}, shifted=False))
    after = None if candidate is None else _rounded(_histogram(problem, candidate))
    return Importance(LOW, HIGH, _rounded(before), after)


def _histogram(problem: BlockProblem, candidate: Candidate) -> Tensor:
    """Shares of the block's weights in each bin, fp64 [BINS]; a layer counts by its size."""
    total = torch.zeros(BINS, dtype=torch.float64)
    for layer in problem.layers:
        rows, columns = layer.weight.shape
        every = -(-rows // max(SCORED_WEIGHTS // columns, 1))
        row_scale = problem.row_factor(candidate.scales, layer)
        with naming(layer.view):
            score = problem.method.scaled_score(
                layer.weight[::every],
                layer.scored_moments(candidate.shifted),
                problem.column_factor(candidate.scales, layer),
                None if row_scale is None else row_scale[::every],
            )
        total += relative_histogram(score, layer.target.shares_rows).cpu() * layer.weight.numel()
    return total / sum(layer.weight.numel() for layer in problem.layers)


def spectrum(problem: BlockProblem, weights: Weights) -> Spectrum | None:
    """Singular values of the block's smallest layer, dense and pruned; None where they cost too much."""
    if not problem.layers:
        return None
    layer = min(problem.layers, key=lambda layer: layer.weight.numel())
    if not affordable(*layer.weight.shape):
        return None
    positions = spread_positions(min(layer.weight.shape))
    dense = sampled_singular_values(layer.weight, positions)
    pruned = sampled_singular_values(weights[layer.view.name][0], positions)
    return Spectrum(layer.view.name, positions.tolist(), _significant(dense), _significant(pruned))


def _tenths(values: Tensor) -> tuple[float, float]:
    """What a tenth of the values is below, and above."""
    low, high = torch.quantile(values.float(), torch.tensor([0.1, 0.9], device=values.device)).tolist()
    return low, high


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


def _significant(values: Tensor) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]
