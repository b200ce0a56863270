"""Swaps end where no exchange of a kept for a pruned weight lowers a row's error, and keep every count."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import METHODS, block_weights, calibration, induce, prune, same_bytes, tiny

from optimum_si.algorithms.pruning import get_method
from optimum_si.algorithms.pruning.method import Settings
from optimum_si.algorithms.pruning.targets import NM, Unstructured
from optimum_si.algorithms.reconstruction.least_squares import DampedGram, LeastSquares
from optimum_si.algorithms.reconstruction.method import Reconstructed
from optimum_si.algorithms.reconstruction.swapping import Swapped
from optimum_si.algorithms.reconstruction.swaps import _within_groups, best_swap
from optimum_si.linalg.moments import MomentAccumulator


TARGETS = [NM(2, 4), NM(1, 4), Unstructured(0.5), Unstructured(0.7), Unstructured(0.6, "layer")]
ROUNDING = 1e-9


def state(seed=0, rows=6, columns=16, dead=(), zeros=0.0):
    """A weight, some of whose values are zero, and the moments of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(64, columns, generator=generator, dtype=torch.float64)
    tokens = tokens @ torch.randn(columns, columns, generator=generator, dtype=torch.float64) + 0.5
    tokens[:, list(dead)] = 0
    accumulator = MomentAccumulator(columns, gram=True)
    accumulator.add(tokens)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    weight[torch.rand(weight.shape, generator=generator) < zeros] = 0
    return weight, accumulator.moments()


def row_error(row, dense, gram):
    return float((row - dense) @ gram @ (row - dense))


def exchanges(row, dense, gram, size, keeps):
    """(change of the error, column out, column in) of every exchange that is allowed, by trying it."""
    before, found = row_error(row, dense, gram), []
    for out, into in product(range(len(row)), repeat=2):
        if row[out] != 0 and row[into] == 0 and dense[into] != 0 and out // size == into // size and gram[into, into]:
            tried = row.clone()
            tried[out] = 0
            # The error is a parabola in the value that comes in.
            tried[into] = dense[into] if keeps else ((dense - tried) @ gram)[into] / gram[into, into]
            found.append((row_error(tried, dense, gram) - before, out, into))
    return found


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("size", [4, 8])
@given(seed=st.integers(0, 10_000), zeros=st.sampled_from([0.0, 0.3]))
@settings(max_examples=15, deadline=None)
def test_the_best_swap_is_that_of_an_exhaustive_search(keeps, size, seed, zeros):
    weight, moments = state(seed, 3, 8, dead=[1], zeros=zeros)
    gram = moments.gram
    pruned = get_method("wanda")().prune(weight, moments, Unstructured(0.5))
    allowed = (weight != 0) & (gram.diagonal() > 0)
    values = weight if keeps else None
    found = best_swap(pruned, (weight - pruned) @ gram, _within_groups(gram, size), allowed, size, values)
    for row, (change, out, into, _) in enumerate(found.tolist()):
        tried = exchanges(pruned[row], weight[row], gram, size, keeps)
        if not tried:
            assert change == float("inf")
            continue
        assert change == pytest.approx(min(tried)[0], rel=1e-8, abs=1e-9)
        assert (out, into) in [(j, k) for value, j, k in tried if value <= min(tried)[0] + 1e-8]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("target", TARGETS)
def test_swaps_end_where_none_helps_and_never_raise_an_error(name, target):
    # More columns than are tried at first, so that the end has been looked at in full.
    weight, moments = state(3, 6, 24, dead=[5], zeros=0.1)
    method = get_method(name)(Settings())
    plain, refined = (chosen.prune(weight, moments, target) for chosen in (method, Swapped(method)))
    lowered = 0
    for row, (before, after) in enumerate(zip(plain, refined, strict=True)):
        errors = [row_error(value, weight[row], moments.gram) for value in (before, after)]
        lowered += errors[1] < errors[0]
        tried = exchanges(after, weight[row], moments.gram, target.exchange(24), method.keeps_weights)
        assert errors[1] <= errors[0] and min(tried)[0] >= -ROUNDING * errors[0]
    assert lowered


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), target=st.sampled_from(TARGETS), name=st.sampled_from(METHODS))
def test_counts_dense_zeros_and_dead_inputs_stay(seed, target, name):
    weight, moments = state(seed, 5, 16, dead=[2], zeros=0.2)
    method = get_method(name)(Settings())
    plain, refined = (chosen.prune(weight, moments, target) for chosen in (method, Swapped(method)))
    groups = [(value != 0).reshape(-1, target.exchange(16)).sum(dim=1) for value in (plain, refined)]
    assert torch.equal(*groups)
    assert not refined[weight == 0].any()
    assert not refined[:, 2][plain[:, 2] == 0].any()
    if method.keeps_weights:
        assert torch.equal(refined, weight * (refined != 0))


def test_single_precision_finds_as_good_a_mask():
    weight, moments = state(7, 24, 64)
    method = Swapped(get_method("wanda")())
    plain = get_method("wanda")().prune(weight, moments, Unstructured(0.6))
    double, single = (method.prune(value, moments, Unstructured(0.6)).double() for value in (weight, weight.float()))
    error = [float(((value - weight) @ moments.gram * (value - weight)).sum()) for value in (plain, double, single)]
    assert error[1] < 0.8 * error[0] and error[2] == pytest.approx(error[1], rel=0.02)


@pytest.mark.parametrize("search", [False, True], ids=["exact", "admm"])
@pytest.mark.parametrize("target", TARGETS)
def test_with_a_fit_the_fit_of_the_swapped_mask_is_never_worse(target, search):
    weight, moments = state(5, 24, 32, dead=[3])
    inner = Settings()
    plain, refined = (
        Reconstructed(get_method("wanda")(inner), search, inner, swaps).prune(weight, moments, target)
        for swaps in (False, True)
    )
    squares = LeastSquares.of(weight, DampedGram.of(moments.gram, inner.damping, "mean", weight.dtype))
    errors = [float(squares.errors(squares.into(value)).sum()) for value in (plain, refined)]
    assert errors[1] <= errors[0] if search else errors[1] < errors[0]  # no swap may help ADMM's mask
    assert torch.equal((plain != 0).sum(dim=1), (refined != 0).sum(dim=1)) or isinstance(target, Unstructured)
    assert int((plain == 0).sum()) == int((refined == 0).sum())
    if isinstance(target, NM):
        assert int((refined.reshape(-1, target.of) != 0).sum(dim=1).max()) <= target.kept


@pytest.mark.parametrize(
    ("method", "recipe"),
    [
        *((method, {}) for method in METHODS),
        ("wanda", {"reconstruction": "exact", "repair": 0}),
        ("wanda", {"reconstruction": "exact", "repair": 0.5}),
        ("sparsegpt", {"reconstruction": "admm", "repair": 0}),
    ],
    ids=str,
)
@pytest.mark.parametrize("target", [{"sparsity": 0.6}, {"pattern": "2:4"}], ids=str)
def test_swaps_change_every_run_and_no_count(method, target, recipe):
    plain, swaps = (
        prune(tiny("llama"), method, induction=None, swaps=swaps, **target, **recipe) for swaps in (False, True)
    )
    assert not same_bytes(plain.model, swaps.model)
    assert plain.report.sparsity == pytest.approx(swaps.report.sparsity, abs=1e-3 if method == "sparsegpt" else 0)
    if "pattern" in target:
        for weight in block_weights(swaps.model).values():
            assert int((weight.reshape(-1, 4) != 0).sum(dim=1).max()) <= 2


def test_weights_that_are_read_transposed_are_swapped_too():
    # Conv1D keeps [d_in, d_out].
    recipe = {"induction": None, "pattern": "2:4", "swaps": True}
    for more in ({}, {"reconstruction": "exact", "repair": 0}):
        for weight in block_weights(prune(tiny("gpt2"), "wanda", **recipe, **more).model).values():
            assert int((weight.reshape(-1, 4) != 0).sum(dim=1).max()) <= 2


def test_swaps_lower_the_error_of_layers():
    plain, swaps = (
        prune(tiny("llama"), "wanda", calibration("", 48), induction=None, sparsity=0.6, swaps=swaps).report
        for swaps in (False, True)
    )
    # Inputs of the first layers are the same in both.
    for before, after in zip(plain.layers[:3], swaps.layers[:3], strict=True):
        assert after.error_after < before.error_after


def test_after_induce_prune_swaps_to_the_same_weights(tmp_path):
    recipe = {"sparsity": 0.5, "swaps": True, "induction": {"epochs": 1, "learning_rate": 0.05}}
    induce(tiny("llama"), "magnitude", save_dir=tmp_path, **recipe)
    at_once, later = prune(tiny("llama"), "magnitude", **recipe), prune(str(tmp_path), "magnitude", **recipe)
    assert any(block.choice == "induced" for block in at_once.report.blocks)
    assert same_bytes(at_once.model, later.model)
