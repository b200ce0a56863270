"""Moments of both models' inputs together are those of all tokens at once, however they are cut into batches."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_si.linalg.paired_moments import PairedMoments


FEATURES, OUTPUTS = 5, 3


def tokens(seed, count, features=FEATURES, offset=3.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, features, generator=generator, dtype=torch.float64) + offset


def paired(cuts, residual=True):
    """Moments of 24 tokens, merged from pieces, and the tokens themselves."""
    sparse, dense, error = tokens(0, 24), tokens(1, 24), tokens(2, 24, OUTPUTS, -1)
    edges = [0, *sorted(cuts), 24]
    pieces = [slice(first, last) for first, last in zip(edges, edges[1:], strict=False) if last > first]
    found = [PairedMoments.of(sparse[at], dense[at], error[at] if residual else None) for at in pieces]
    total = found[0]
    for piece in found[1:]:
        total = total.merged(piece)
    return total, sparse, dense, error


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, 23), max_size=4, unique=True), residual=st.booleans(), center=st.booleans())
def test_the_target_shift_is_the_cross_moment_of_what_the_dense_model_has_beyond(cuts, residual, center):
    total, sparse, dense, error = paired(cuts, residual)
    weight = tokens(9, OUTPUTS, FEATURES, 0)
    beyond = (dense - sparse) @ weight.T + (error if residual else 0)
    inputs = sparse
    torch.testing.assert_close(total.mean_target_shift(weight), beyond.mean(0), rtol=1e-12, atol=1e-12)
    if center:
        beyond, inputs = beyond - beyond.mean(0), sparse - sparse.mean(0)
    torch.testing.assert_close(total.target_shift(weight, center), beyond.T @ inputs / 24, rtol=1e-11, atol=1e-11)


@settings(max_examples=10)
@given(cuts=st.lists(st.integers(1, 23), max_size=4, unique=True))
def test_the_moments_of_the_pruned_model_are_its_own(cuts):
    total, sparse, _, _ = paired(cuts)
    moments = total.moments()
    assert moments.count == 24
    torch.testing.assert_close(moments.mean, sparse.mean(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments.gram, sparse.T @ sparse / 24, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(moments.diagonal, moments.gram.diagonal())


def test_a_large_mean_cancels_nothing_in_single_precision():
    sparse = tokens(0, 4096, offset=5000)
    dense = sparse + tokens(1, 4096, offset=0)
    exact = PairedMoments.of(sparse, dense)
    rounded = PairedMoments.of(sparse.float(), dense.float())
    assert (rounded.centered - exact.centered).norm() < 1e-3 * exact.centered.norm()


def test_some_outputs_are_those_of_all():
    total, *_ = paired([5, 9])
    weight, rows = tokens(9, OUTPUTS, FEATURES, 0), slice(None, None, 2)
    for center in (True, False):
        torch.testing.assert_close(
            total.outputs(rows).target_shift(weight[rows], center), total.target_shift(weight, center)[rows]
        )
    torch.testing.assert_close(
        total.outputs(rows).mean_target_shift(weight[rows]), total.mean_target_shift(weight)[rows]
    )
