"""Reconstruction gives the least-squares weights of a mask, and ADMM never a worse mask than the method's."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import METHODS, calibration, logits, prune, relative_change, same_bytes, tiny

from optimum_si import ConfigurationError, SIConfig
from optimum_si.algorithms.pruning import get_method
from optimum_si.algorithms.pruning.method import Settings
from optimum_si.algorithms.pruning.targets import NM, Unstructured
from optimum_si.algorithms.reconstruction import least_squares
from optimum_si.algorithms.reconstruction.least_squares import DampedGram, LeastSquares, eased
from optimum_si.algorithms.reconstruction.method import Reconstructed
from optimum_si.linalg.moments import MomentAccumulator


DAMPING = 0.01
TARGETS = [NM(2, 4), NM(4, 8), Unstructured(0.5), Unstructured(0.7), Unstructured(0.6, "layer")]


def state(seed=0, rows=6, columns=16, dtype=torch.float64, dead=()):
    """A weight and the moments of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(64, columns, generator=generator, dtype=torch.float64)
    tokens = tokens @ torch.randn(columns, columns, generator=generator, dtype=torch.float64) + 0.5
    tokens[:, list(dead)] = 0
    accumulator = MomentAccumulator(columns, gram=True)
    accumulator.add(tokens)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(dtype), accumulator.moments()


def direct(weight, gram, mask):
    """Row by row, by a solver for small systems."""
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    result = torch.zeros_like(weight)
    for row, kept in enumerate(mask):
        result[row, kept] = torch.linalg.solve(damped[kept][:, kept], (damped @ weight[row])[kept])
    return result


def method(name, kind):
    inner = Settings(damping=DAMPING)
    return Reconstructed(get_method(name)(inner), kind == "admm", inner)


def error(weight, dense, gram):
    difference = weight - dense
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return ((difference @ damped) * difference).sum()


@contextmanager
def solved():
    """Fits that go on until nothing is left to gain: they stop where the rest costs more than it brings."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"GAIN": 0.0, "ROUGH": 0.0, "MOST_ITERATIONS": 400}.items():
            patch.setattr(least_squares, name, value)
        yield


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 9), groups=st.integers(1, 4), target=st.sampled_from(TARGETS))
def test_exact_is_the_direct_solution(seed, rows, groups, target):
    weight, moments = state(seed, rows, 8 * groups)
    with solved():
        pruned = method("wanda", "exact").prune(weight, moments, target)
    mask = get_method("wanda")().prune(weight, moments, target) != 0
    torch.testing.assert_close(pruned, direct(weight, moments.gram, mask), rtol=1e-6, atol=1e-8)
    assert not pruned[~mask].any()


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), target=st.sampled_from(TARGETS))
def test_where_a_fit_stops_little_is_left_to_gain(seed, target):
    weight, moments = state(seed, 24, 32)
    mask = get_method("wanda")().prune(weight, moments, target) != 0
    squares = LeastSquares.of(weight, DampedGram.of(moments.gram, DAMPING, "mean", weight.dtype))
    fits = [weight * mask, *(squares.out_of(squares.exact(mask, rough=rough)) for rough in (True, False))]
    best = float(error(direct(weight, moments.gram, mask), weight, moments.gram))
    start, rough, usual = (float(error(value, weight, moments.gram)) - best for value in fits)
    assert -1e-9 * best <= usual <= rough < start
    assert usual < 0.05 * start and rough < 0.2 * start


def test_exact_in_single_precision_is_close_to_it():
    weight, moments = state(dtype=torch.float32)
    with solved():
        pruned = method("wanda", "exact").prune(weight, moments, NM(2, 4))
    assert pruned.dtype == torch.float32
    expected = direct(weight.double(), moments.gram, pruned != 0)
    assert relative_change(pruned, expected) < 1e-3


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("target", TARGETS)
def test_each_step_lowers_the_error_and_keeps_the_pattern(name, target):
    weight, moments = state(3, 24, 32)
    plain = get_method(name)(Settings(damping=DAMPING)).prune(weight, moments, target)
    exact, admm = (method(name, kind).prune(weight, moments, target) for kind in ("exact", "admm"))
    errors = [float(error(value, weight, moments.gram)) for value in (plain, exact, admm)]
    assert errors[1] < errors[0] and errors[2] <= errors[1] * (1 + 1e-9)
    for value in (exact, admm):
        if isinstance(target, NM):
            assert int((value.reshape(-1, target.of) != 0).sum(1).max()) <= target.kept
        else:
            # Exact within the group that is ranked; ADMM rounds in each row what SparseGPT rounds once.
            zeros, wanted = int((value == 0).sum()), int((plain == 0).sum())
            assert zeros == wanted or (value is admm and zeros == 24 * target.pruned(32))


def test_admm_finds_better_masks_than_scores_do():
    weight, moments = state(5, 64, 64)
    exact, admm = (method("wanda", kind).prune(weight, moments, NM(2, 4)) for kind in ("exact", "admm"))
    assert error(admm, weight, moments.gram) < 0.9 * error(exact, weight, moments.gram)


def test_dead_inputs_and_zeros_stay_zero():
    weight, moments = state(dead=(3, 7))
    weight[:, 1] = 0
    for kind in ("exact", "admm"):
        pruned = method("magnitude", kind).prune(weight, moments, Unstructured(0.3))
        assert not pruned[:, [1, 3, 7]].any() and bool(torch.isfinite(pruned).all())


def test_nothing_to_prune_is_nothing_to_fit():
    weight, moments = state()
    for kind in ("exact", "admm"):
        torch.testing.assert_close(method("wanda", kind).prune(weight, moments, Unstructured(0.0)), weight)


def test_a_learned_scale_moves_the_mask_of_both():
    weight, moments = state(1, 12, 16)
    scale = torch.ones(16, dtype=torch.float64)
    scale[:4] = 50
    for kind in ("exact", "admm"):
        pruned = method("wanda", kind).prune(weight, moments, Unstructured(0.5), scale=scale)
        assert kind == "admm" or (pruned[:, :4] != 0).all()
        damped = DampedGram.of(moments.gram, DAMPING, "mean", weight.dtype)
        search = LeastSquares.of(weight, damped).search(Unstructured(0.5), weight != 0, scale)
        assert (search[:, :4] != 0).all()


def test_targets_are_eased_in():
    assert eased(Unstructured(0.8), 1.0) == Unstructured(0.8) and eased(NM(2, 4), 1.0) == NM(2, 4)
    assert eased(Unstructured(0.8), 0.1).sparsity < 0.25 and eased(NM(2, 4), 0.05) == NM(4, 4)
    assert [eased(NM(2, 4), step / 10).kept for step in range(1, 11)][-1] == 2


@pytest.mark.parametrize("name", METHODS)
def test_models_lose_less_and_runs_repeat(name):
    recipe = {"pattern": "2:4", "induction": None}
    dense = logits(tiny("llama"))
    pruned = {kind: prune(tiny("llama"), name, reconstruction=kind, **recipe) for kind in ("none", "exact", "admm")}
    losses = {kind: relative_change(logits(pruner.model), dense) for kind, pruner in pruned.items()}
    assert losses["exact"] < losses["none"] and losses["admm"] < losses["none"]
    again = prune(tiny("llama"), name, reconstruction="admm", **recipe)
    assert same_bytes(again.model, pruned["admm"].model)
    assert "admm reconstruction" in pruned["admm"].report.steps and "admm" in pruned["admm"].report.summary()


def test_with_induction_it_is_chosen_on_what_it_gives():
    pruner = prune(tiny("opt"), "wanda", calibration("opt"), pattern="2:4", reconstruction="exact")
    assert all(block.loss_after <= block.loss_before for block in pruner.report.blocks)


def test_unknown_kinds_are_refused():
    with pytest.raises(
        ConfigurationError, match="reconstruction='best' is unknown; accepted: 'none', 'exact', 'admm'"
    ):
        SIConfig(reconstruction="best")


@pytest.mark.parametrize("mode", ["mean", "channel"])
def test_a_damped_gram_is_that_of_inputs_of_unit_energy(mode):
    _, moments = state(dead=(2,))
    gram = moments.gram
    diagonal = gram.diagonal()
    damped = gram + DAMPING * torch.diag(diagonal.mean().expand(16) if mode == "mean" else diagonal)
    damped[2, 2] += 1
    found = DampedGram.of(gram, DAMPING, mode, torch.float64)
    torch.testing.assert_close((found.norms * found.unit).square(), damped.diagonal())
    torch.testing.assert_close(found.gram, damped / damped.diagonal().sqrt() / damped.diagonal().sqrt()[:, None])
    assert found.alive.tolist() == [column != 2 for column in range(16)]
    for penalty in (0.3, 1.0):
        inverse = found.inverse(penalty)
        identity = torch.eye(16, dtype=torch.float64)
        torch.testing.assert_close(inverse @ (found.gram + penalty * identity), identity)
        assert found.inverse(penalty) is inverse  # once for all layers that read the input


def test_some_rows_of_a_problem_are_problems_of_their_own():
    weight, moments = state(rows=12)
    damped = DampedGram.of(moments.gram, DAMPING, "mean", weight.dtype)
    shift, mask = 0.1 * torch.randn_like(weight), torch.rand(12, 16) > 0.5
    rows = slice(None, None, 3)
    some, alone = LeastSquares.of(weight, damped, shift).rows(rows), LeastSquares.of(weight[rows], damped, shift[rows])
    torch.testing.assert_close(some.target_gram * some.unit, alone.target_gram * alone.unit)
    torch.testing.assert_close(some.out_of(some.exact(mask[rows])), alone.out_of(alone.exact(mask[rows])))


@pytest.mark.parametrize("factor", [2.0**-100, 2.0**-10, 2.0**100])
def test_powers_of_two_in_weights_and_inputs_change_no_bit(factor):
    """fp32 would overflow, or come to nothing, in the squares of such numbers."""
    weight, moments = (value.float() if isinstance(value, torch.Tensor) else value for value in state(rows=12))
    gram = moments.gram

    def fitted(of_weight, of_inputs):
        damped = DampedGram.of(gram * of_inputs**2, DAMPING, "mean", torch.float32)
        squares = LeastSquares.of(weight * of_weight, damped)
        return squares.out_of(squares.search(Unstructured(0.5), weight != 0))

    plain = fitted(1, 1)
    assert torch.equal(fitted(factor, 1) / factor, plain)
    assert torch.equal(fitted(1, factor), plain)
