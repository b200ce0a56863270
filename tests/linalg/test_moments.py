"""Moments do not depend on batches, do not cancel, and follow scales and shifts without a forward pass."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import correlated_tokens, moments_of, random_scale

from optimum_si.linalg.moments import MomentAccumulator


@pytest.mark.parametrize("gram", [True, False])
@pytest.mark.parametrize("with_scale", [True, False])
@pytest.mark.parametrize("with_shift", [True, False])
def test_the_fast_update_equals_moments_of_transformed_tokens(gram, with_scale, with_shift):
    tokens = correlated_tokens()
    scale = random_scale(16) if with_scale else None
    shift = torch.linspace(-3, 3, 16, dtype=torch.float64) if with_shift else None
    fast = moments_of(tokens, gram).transformed(scale, shift)
    again = moments_of((tokens - (0 if shift is None else shift)) * (1 if scale is None else scale), gram)
    torch.testing.assert_close(fast.mean, again.mean, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(fast.diagonal, again.diagonal, rtol=1e-6, atol=1e-9)
    if gram:
        torch.testing.assert_close(fast.gram, again.gram, rtol=1e-6, atol=1e-6)
    else:
        assert fast.gram is None


def test_two_updates_equal_their_product_and_are_remembered():
    moments, first, second = moments_of(correlated_tokens()), random_scale(16), random_scale(16, seed=8)
    twice, once = moments.transformed(first).transformed(second), moments.transformed(first * second)
    torch.testing.assert_close(twice.gram, once.gram)
    torch.testing.assert_close(twice.scale, first * second)


def test_an_update_leaves_the_moments_it_started_from():
    moments = moments_of(correlated_tokens())
    gram = moments.gram.clone()
    moments.transformed(random_scale(16), torch.ones(16))
    assert torch.equal(moments.gram, gram)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), st.booleans())
def test_moments_do_not_depend_on_how_tokens_are_batched(sizes, gram):
    tokens = correlated_tokens(sum(sizes))
    accumulator = MomentAccumulator(16, gram)
    for part in tokens.split(sizes):
        accumulator.add(part)
    moments = accumulator.moments()
    assert moments.count == len(tokens)
    torch.testing.assert_close(moments.mean, tokens.mean(dim=0))
    torch.testing.assert_close(moments.diagonal, tokens.square().mean(dim=0))
    if gram:
        torch.testing.assert_close(moments.gram, tokens.T @ tokens / len(tokens))


@pytest.mark.parametrize("gram", [True, False])
def test_a_mean_of_five_thousand_deviations_does_not_cancel(gram):
    tokens = (torch.randn(4096, 2, generator=torch.Generator().manual_seed(0)).double() + 5000).float()
    accumulator = MomentAccumulator(2, gram)
    for part in tokens.split(100):
        accumulator.add(part)
    moments = accumulator.moments()
    variance = moments.transformed(shift=moments.mean).diagonal
    torch.testing.assert_close(variance, tokens.double().var(dim=0, correction=0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tokens_are_added_up_in_a_wider_dtype(dtype):
    tokens = (torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
    moments = moments_of(tokens, gram=False)
    torch.testing.assert_close(moments.diagonal, tokens.double().square().mean(dim=0), rtol=1e-5, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_token_that_is_not_finite_is_noticed(value):
    tokens = correlated_tokens(8)
    assert moments_of(tokens).is_finite()
    tokens[3, 5] = value
    assert not moments_of(tokens).is_finite() and not moments_of(tokens, gram=False).is_finite()


def test_no_tokens_change_nothing():
    accumulator = MomentAccumulator(3, gram=True)
    accumulator.add(torch.empty(0, 3))
    assert accumulator.moments().count == 0 and not accumulator.moments().gram.any()


@pytest.mark.parametrize("features", [511, 600])
def test_wide_gram_matrices_are_whole_too(features):
    # Their upper part is added up, in panels of columns.
    tokens = torch.randn(40, features, dtype=torch.float64) + 2
    accumulator = MomentAccumulator(features, gram=True)
    for part in tokens.split(16):
        accumulator.add(part)
        gram = accumulator.moments().gram  # may be asked for in between
    torch.testing.assert_close(gram, tokens.T @ tokens / 40)
    assert torch.equal(gram, gram.T)
