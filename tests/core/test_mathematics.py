"""Statistics, targets, masks and scores against brute force."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimum_si.errors import NumericalError
from optimum_si.induction.masking import log_score, straight_through_mask
from optimum_si.induction.scales import normalised_log, power_of_two, robust_scale
from optimum_si.induction.spectral import SpectralNormLoss, schatten_norm
from optimum_si.pruning import METHODS, get_method
from optimum_si.pruning.base import Settings
from optimum_si.pruning.sparsegpt import SparseGPT, inverse_factor
from optimum_si.pruning.targets import NM, Unstructured
from optimum_si.statistics import MomentAccumulator


def moments_of(tokens, gram=True):
    accumulator = MomentAccumulator(tokens.shape[1], gram)
    accumulator.add(tokens)
    return accumulator.moments()


def correlated(rows=256, columns=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64) @ mixing + 1


@pytest.mark.parametrize("gram", [True, False])
def test_fast_update_equals_moments_of_transformed_tokens(gram):
    tokens = correlated()
    scale, shift = torch.rand(16, dtype=torch.float64) + 0.5, torch.randn(16, dtype=torch.float64)
    fast = moments_of(tokens, gram).transformed(scale, shift)
    again = moments_of((tokens - shift) * scale, gram)
    torch.testing.assert_close(fast.diagonal, again.diagonal, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(fast.mean, again.mean, rtol=1e-6, atol=1e-9)
    if gram:
        torch.testing.assert_close(fast.gram, again.gram, rtol=1e-6, atol=1e-6)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_moments_do_not_depend_on_how_tokens_are_batched(sizes):
    tokens = correlated(sum(sizes))
    accumulator = MomentAccumulator(16, gram=True)
    for part in tokens.split(sizes):
        accumulator.add(part)
    torch.testing.assert_close(accumulator.moments().gram, tokens.T @ tokens / len(tokens))
    assert accumulator.moments().count == len(tokens)


def test_a_mean_of_five_thousand_deviations_does_not_cancel():
    tokens = (torch.randn(4096, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 5000).float()
    moments = moments_of(tokens, gram=False)
    centred = moments.transformed(shift=moments.mean).diagonal
    assert float(centred) == pytest.approx(float(tokens.double().var(correction=0)), rel=1e-4)


@given(st.integers(1, 9), st.integers(1, 40), st.floats(0, 0.99), st.sampled_from(["row", "layer"]), st.integers(1, 5))
def test_counts_are_exact_whatever_the_ties(rows, columns, sparsity, group, values):
    score = torch.randint(values, (rows, columns), generator=torch.Generator().manual_seed(rows)).double()
    keep = Unstructured(sparsity, group).keep(score)
    groups = keep.reshape(1, -1) if group == "layer" else keep
    size = groups.shape[1]
    assert ((~groups).sum(dim=1) == round(sparsity * size)).all()
    for mask, scores in zip(groups, score.reshape(groups.shape), strict=True):
        if mask.any() and (~mask).any():
            assert scores[mask].min() >= scores[~mask].max()


@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([(1, 2), (2, 4), (4, 8), (3, 5)]), st.integers(1, 4))
def test_every_group_of_a_pattern_holds_whatever_the_ties(rows, groups, pattern, values):
    kept, of = pattern
    score = torch.randint(values, (rows, groups * of), generator=torch.Generator().manual_seed(groups)).double()
    assert (NM(kept, of).keep(score).reshape(-1, of).sum(dim=1) == kept).all()


def test_among_equal_scores_the_lower_index_is_pruned_first():
    assert Unstructured(0.5).keep(torch.ones(1, 4)).tolist() == [[False, False, True, True]]


TARGETS = [Unstructured(0.5), Unstructured(0.6, "layer"), NM(2, 4)]


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_zeros_stay_and_count(method, target):
    weight = torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight[:, ::4] = 0
    pruned = get_method(method)().prune(weight, moments_of(correlated()), target)
    assert (pruned[weight == 0] == 0).all()
    assert int((pruned == 0).sum()) == (77 if target == TARGETS[1] else 64)


@pytest.mark.parametrize("target", [Unstructured(0.5), NM(2, 4)], ids=str)
def test_input_scaling_never_moves_a_wanda_mask(target):
    weight, tokens = torch.randn(8, 16, dtype=torch.float64), correlated()
    scale = power_of_two(torch.exp(torch.randn(16, dtype=torch.float64)))
    wanda = get_method("wanda")()
    before = wanda.prune(weight, moments_of(tokens), target)
    after = wanda.prune(weight * scale, moments_of(tokens / scale), target) / scale
    assert torch.equal(before, after)


@pytest.mark.parametrize("settings", [Settings(damping=0.0), Settings(damping_mode="channel")], ids=str)
@pytest.mark.parametrize("target", [Unstructured(0.5), NM(2, 4)], ids=str)
def test_input_scaling_never_moves_a_sparsegpt_mask_without_mean_damping(target, settings):
    weight, tokens = torch.randn(8, 16, dtype=torch.float64), correlated()
    scale = power_of_two(torch.exp(torch.randn(16, dtype=torch.float64)))
    before = SparseGPT(settings).prune(weight, moments_of(tokens), target)
    after = SparseGPT(settings).prune(weight * scale, moments_of(tokens / scale), target) / scale
    assert torch.equal(before == 0, after == 0)


def test_input_scaling_moves_magnitude_and_output_scaling_moves_no_wanda_row():
    generator = torch.Generator().manual_seed(3)
    weight, tokens = torch.randn(8, 16, dtype=torch.float64, generator=generator), correlated()
    scale = torch.exp(torch.randn(16, dtype=torch.float64, generator=generator))
    moments, target = moments_of(tokens), Unstructured(0.5)
    magnitude, wanda = get_method("magnitude")(), get_method("wanda")()
    assert not torch.equal(
        magnitude.prune(weight * scale, moments, target) == 0, magnitude.prune(weight, moments, target) == 0
    )
    rows = power_of_two(scale[:8])[:, None]
    assert torch.equal(wanda.prune(weight * rows, moments, target) / rows, wanda.prune(weight, moments, target))


def test_a_learned_scale_weighs_the_score_and_leaves_the_weight():
    weight, moments = torch.randn(8, 16, dtype=torch.float64), moments_of(correlated())
    scale = torch.exp(torch.randn(16, dtype=torch.float64))
    for name in ("magnitude", "wanda"):
        method = get_method(name)()
        pruned = method.prune(weight, moments, Unstructured(0.5), scale=scale)
        expected = weight * Unstructured(0.5).keep(method.score(weight, moments) * scale)
        assert torch.equal(pruned, expected)


def test_sparsegpt_equals_removing_one_column_after_the_other_exactly():
    weight, moments = torch.randn(4, 12, dtype=torch.float64), moments_of(correlated(columns=12))
    pruned = SparseGPT(Settings(block_size=12)).prune(weight, moments, Unstructured(0.5))
    hessian = moments.gram + torch.eye(12, dtype=torch.float64) * 0.01 * moments.gram.diagonal().mean()
    for row, original in zip(pruned, weight, strict=True):
        expected = original.clone()
        for column in range(12):
            if row[column] == 0:
                rest = torch.arange(column, 12)
                inverse = torch.linalg.inv(hessian[rest][:, rest])
                expected[rest] -= expected[column] / inverse[0, 0] * inverse[0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


def test_a_gram_matrix_that_cannot_be_factorised_says_so():
    with pytest.raises(NumericalError, match="damping"):
        inverse_factor(-torch.eye(4, dtype=torch.float64), 0.01, "mean")


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_straight_through_mask_is_the_mask(target):
    score = torch.rand(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = straight_through_mask(log_score(score), target, 0.05)
    assert torch.equal(mask.bool(), target.keep(score))
    assert set(mask.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_common_factor_of_a_group_gets_no_gradient(target):
    score = torch.rand(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    score[0, 0] = 0
    common = torch.zeros((), dtype=torch.float64, requires_grad=True)
    mask = straight_through_mask(log_score(score) + common, target, 0.05)
    (mask * torch.randn(8, 16, dtype=torch.float64)).sum().backward()
    assert abs(float(common.grad)) < 1e-9


@pytest.mark.parametrize(("p", "expected"), [(1, lambda s: s.sum()), (2, lambda s: s.norm()), ("inf", lambda s: s[0])])
def test_schatten_norms_equal_those_of_singular_values(p, expected):
    matrix = torch.randn(6, 9, dtype=torch.float64)
    loss = SpectralNormLoss([matrix], p, None, normalised=False)
    for _ in range(200):
        total = loss.total([matrix])
    torch.testing.assert_close(total, expected(torch.linalg.svdvals(matrix)), rtol=1e-6, atol=0)


def test_the_spectral_loss_starts_at_one_over_e_and_falls_as_norms_grow():
    weights = [torch.randn(6, 9, dtype=torch.float64) for _ in range(3)]
    loss = SpectralNormLoss(weights, 2, None, normalised=False)
    assert float(loss(weights)) == pytest.approx(float(torch.exp(torch.tensor(-1.0))))
    assert loss([2 * weight for weight in weights]) < loss(weights)
    scale_free = SpectralNormLoss(weights, "inf", None, normalised=True)
    torch.testing.assert_close(scale_free([2 * weight for weight in weights]), scale_free(weights), rtol=1e-3, atol=0)
    assert schatten_norm(weights[0], 2) > 0


def test_the_robust_start_is_equation_five_and_is_normalised():
    tokens = correlated()
    moments = moments_of(tokens)
    raw = robust_scale(tokens, moments)
    expected = (tokens.median(dim=0).values - tokens.mean(dim=0).mean()).square()
    torch.testing.assert_close(raw, expected)
    log = normalised_log(raw, None, 16, 4.0)
    assert log.abs().max() <= torch.log(torch.tensor(4.0)) + 1e-9


def test_rounding_gives_powers_of_the_base():
    scale = torch.tensor([0.3, 0.8, 1.3, 2.7, 3.1])
    assert power_of_two(scale).tolist() == [0.25, 1.0, 1.0, 2.0, 4.0]
    assert power_of_two(scale, base=4).tolist() == [0.25, 1.0, 1.0, 4.0, 4.0]


def test_a_token_with_nan_is_noticed():
    assert not moments_of(torch.tensor([[float("nan"), 1.0]])).is_finite()
