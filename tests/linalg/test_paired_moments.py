"""Moments of both models' inputs together are those of all tokens at once, however they are cut into batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_si.linalg.paired_moments import PairedAccumulator


FEATURES, OUTPUTS = 5, 3
WEIGHT_SEED = 9


def tokens(seed, count, features=FEATURES, offset=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, features, generator=generator, dtype=torch.float64) + offset


def weight():
    return tokens(WEIGHT_SEED, OUTPUTS, FEATURES, 0)


def accumulated(pieces, of_outputs):
    accumulator = PairedAccumulator(of_outputs)
    for inputs, error in pieces:
        accumulator.add(inputs, error)
    return accumulator.moments()


def paired(cuts, of_outputs=True, merged=0):
    """Moments of 24 tokens in pieces, the last ``merged`` of which are added up apart; the tokens, and their errors.

    Errors are those of the layer's outputs, with a stream beside it, or those of its inputs.
    """
    sparse, dense, stream = tokens(0, 24), tokens(1, 24), tokens(2, 24, OUTPUTS, -1)
    error = (dense - sparse) @ weight().T + stream if of_outputs else dense - sparse
    edges = [0, *sorted(cuts), 24]
    pieces = [(sparse[first:last], error[first:last]) for first, last in zip(edges, edges[1:], strict=False)]
    apart = min(merged, len(pieces) - 1)
    total = accumulated(pieces[: len(pieces) - apart], of_outputs)
    if apart:
        total = total.merged(accumulated(pieces[-apart:], of_outputs))
    return total, sparse, error if of_outputs else error @ weight().T


CUTS = st.lists(st.integers(0, 24), max_size=4)


@settings(max_examples=30)
@given(cuts=CUTS, of_outputs=st.booleans(), center=st.booleans(), merged=st.integers(0, 1))
def test_the_target_shift_is_the_cross_moment_of_what_the_dense_model_has_beyond(cuts, of_outputs, center, merged):
    cuts = [cut for cut in cuts if 0 < cut < 24] if merged else cuts  # what is merged holds some tokens
    total, sparse, beyond = paired(sorted(set(cuts)), of_outputs, merged)
    torch.testing.assert_close(total.mean_target_shift(weight()), beyond.mean(0), rtol=1e-12, atol=1e-12)
    inputs = sparse
    if center:
        beyond, inputs = beyond - beyond.mean(0), sparse - sparse.mean(0)
    torch.testing.assert_close(total.target_shift(weight(), center), beyond.T @ inputs / 24, rtol=1e-11, atol=1e-11)


@settings(max_examples=10)
@given(cuts=CUTS, of_outputs=st.booleans())
def test_the_moments_of_the_pruned_model_are_its_own(cuts, of_outputs):
    total, sparse, _ = paired(cuts, of_outputs)
    moments = total.moments()
    assert moments.count == 24
    torch.testing.assert_close(moments.mean, sparse.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments.gram, sparse.T @ sparse / 24, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(moments.diagonal, moments.gram.diagonal())


def test_reading_moments_changes_nothing():
    total, *_ = paired([5, 9])
    before = total.mean.clone(), total.centered.clone()
    total.moments(), total.target_shift(weight(), False), total.merged(total), total.outputs(slice(None, None, 2))
    assert torch.equal(total.mean, before[0]) and torch.equal(total.centered, before[1])


def test_a_large_mean_cancels_nothing_in_single_precision():
    sparse = tokens(0, 4096, offset=5000)
    error = tokens(1, 4096, offset=0)
    exact = accumulated([(sparse, error)], False)
    rounded = accumulated([(sparse.float(), error.float())], False)
    assert (rounded.centered - exact.centered).norm() < 1e-3 * exact.centered.norm()


@pytest.mark.parametrize("of_outputs", [True, False])
def test_some_outputs_are_those_of_all(of_outputs):
    total, *_ = paired([5, 9], of_outputs)
    rows = slice(None, None, 2)
    for center in (True, False):
        torch.testing.assert_close(
            total.outputs(rows).target_shift(weight()[rows], center), total.target_shift(weight(), center)[rows]
        )
    torch.testing.assert_close(
        total.outputs(rows).mean_target_shift(weight()[rows]), total.mean_target_shift(weight())[rows]
    )
