"""Rounding in turn is GPTQ, and errs less on the Gram matrix than rounding to the nearest."""

from dataclasses import replace

import pytest
import torch
from support.models import correlated_tokens, moments_of, random_weight

from optimum_si.algorithms.pruning.methods.wanda import Wanda
from optimum_si.algorithms.pruning.targets import NM, Unstructured
from optimum_si.algorithms.quantization import gptq
from optimum_si.algorithms.quantization.gptq import in_turn, quantized, row_errors
from optimum_si.algorithms.quantization.grids import GRIDS, Grid


DAMPING = 0.01
BOTH = tuple(GRIDS)


def layer(columns=96, rows=12, target=None, seed=0, dtype=torch.float64):
    """A pruned weight and the Gram matrix of its inputs, which are correlated."""
    moments = moments_of(correlated_tokens(4 * columns, columns, seed))
    weight = random_weight(rows, columns, seed).to(dtype)
    return (weight if target is None else Wanda().prune(weight, moments, target)), moments.gram


def explicit(weight, gram, grid):
    """GPTQ of a weight without zeros by its formula: the inverse of what is left of H, taken anew for each column."""
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    left, result = weight.clone(), torch.zeros_like(weight)
    for column in range(weight.shape[1]):
        first = column - column % grid.group(weight.shape[1])
        if column == first:
            group = left[:, first : first + grid.group(weight.shape[1])]
            anchor = group.abs().argmax(dim=1)
            scale = grid.scale(group.gather(1, anchor[:, None])[:, 0])
        codes = grid.codes(left[:, column], scale)
        earlier = (result[:, first:column] == (scale * grid.lowest)[:, None]).any(dim=1)
        codes[(anchor == column - first) & ~earlier] = grid.lowest
        result[:, column] = codes * scale
        inverse = torch.linalg.inv(damped[column:, column:])
        error = (left[:, column] - result[:, column]) / inverse[0, 0]
        left[:, column:] -= torch.outer(error, inverse[0])
    return result


@pytest.mark.parametrize("values", BOTH)
def test_without_zeros_it_is_gptq(values):
    grid = replace(GRIDS[values], fractions=(1.0,))
    weight, gram = layer(80)
    torch.testing.assert_close(in_turn(weight, gram, grid, DAMPING, "mean"), explicit(weight, gram, grid))


def test_scales_below_the_largest_magnitude_lower_the_error():
    weight, gram = layer(96, 64, NM(2, 4))
    grids = GRIDS["int4"], replace(GRIDS["int4"], fractions=(1.0,))
    with_shares, without = (row_errors(in_turn(weight, gram, g, DAMPING, "mean") - weight, gram).sum() for g in grids)
    assert with_shares < without


def best_in_mask(weight, gram, fixed, free):
    """One row: the best values of free columns, others as in ``fixed``, by a solver for small systems."""
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    change = torch.where(free, 0, fixed - weight)
    result = fixed.clone()
    result[free] = weight[free] - torch.linalg.solve(damped[free][:, free], (damped @ change)[free])
    return result


def test_after_a_block_what_is_kept_is_the_best_in_its_mask(monkeypatch):
    monkeypatch.setattr(gptq, "STEPS", 200)
    weight, gram = layer(64, target=Unstructured(0.5))
    seen = []
    solved = gptq._solved
    monkeypatch.setattr(gptq, "_solved", lambda *args: seen.append(solved(*args)) or seen[-1])
    rounded = in_turn(weight, gram, GRIDS["int4"], DAMPING, "mean")
    following = torch.arange(64) >= 32
    for row in range(len(weight)):
        best = best_in_mask(weight[row], gram, rounded[row], following & (weight[row] != 0))
        torch.testing.assert_close(seen[0].T[row], torch.where(weight[row, 32:] != 0, best[32:], 0))


# What few weights are left of a row have little to repair with.
@pytest.mark.parametrize(
    ("target", "share"), [(None, 0.8), (Unstructured(0.5), 0.8), (NM(2, 4), 0.8), (Unstructured(0.9), 1.0)]
)
@pytest.mark.parametrize("values", BOTH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_error_is_lower_than_that_of_rounding_to_the_nearest(values, target, share, dtype):
    weight, gram = layer(96, 64, target, dtype=dtype)
    grid = GRIDS[values]
    ours, nearest = quantized(weight, gram, grid, DAMPING, "mean"), grid.nearest(weight)
    ours, nearest = row_errors(ours - weight, gram), row_errors(nearest - weight, gram)
    assert bool((ours <= nearest).all())
    assert ours.sum() < share * nearest.sum()


@pytest.mark.parametrize("values", BOTH)
def test_zeros_stay_and_patterns_hold(values):
    weight, gram = layer(96, 16, NM(2, 4))
    ours = quantized(weight, gram, GRIDS[values], DAMPING, "mean")
    assert not ours[weight == 0].any()
    assert int((ours != 0).reshape(16, -1, 4).sum(dim=2).max()) <= 2
    assert not torch.signbit(ours[ours == 0]).any()


@pytest.mark.parametrize("mode", ["mean", "channel"])
def test_inputs_that_are_always_zero_and_rows_without_weights_do_no_harm(mode):
    weight, gram = layer(64, 6)
    weight[2] = 0
    gram[5], gram[:, 5] = 0, 0
    for grid in GRIDS.values():
        ours = quantized(weight, gram, grid, DAMPING, mode)
        assert bool(torch.isfinite(ours).all()) and not ours[2].any()
    ours = quantized(weight, torch.zeros_like(gram), GRIDS["int4"], DAMPING, mode)
    assert bool(torch.isfinite(ours).all())


def test_a_fine_grid_changes_little():
    weight, gram = layer(64, target=NM(2, 4))
    ours = in_turn(weight, gram, Grid(32, -(2**16), 2**16), DAMPING, "mean")
    assert float((ours - weight).abs().max()) < 1e-3
