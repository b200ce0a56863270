"""What may be stored is finite and counted; what is not comes back to what can be."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimum_si.algorithms.pruning.targets import NM, Unstructured
from optimum_si.algorithms.soundness import fault, with_exact_zeros


TARGETS = [Unstructured(0.5), Unstructured(0.5, "layer"), Unstructured(0.3), NM(2, 4), NM(4, 8)]


def dense_weight(seed=0):
    return torch.randn(6, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_what_a_target_keeps_has_no_fault(target):
    dense = dense_weight()
    assert fault(target, dense, dense * target.keep(dense.abs()), None, counts_rows=True) == ""


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_one(bad):
    dense, target = dense_weight(), NM(2, 4)
    pruned = dense * target.keep(dense.abs())
    assert "range" in fault(target, dense, pruned, torch.tensor([bad] * 6), counts_rows=True)
    pruned[0, int(pruned[0].ne(0).nonzero()[0])] = bad
    assert "range" in fault(target, dense, pruned, None, counts_rows=True)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_zero_too_few_or_too_many_is_one(target):
    dense = dense_weight()
    pruned = dense * target.keep(dense.abs())
    kept, gone = (pruned != 0).nonzero()[0], (pruned == 0).nonzero()[0]
    fewer, more = pruned.clone(), pruned.clone()
    fewer[tuple(gone)], more[tuple(kept)] = 1.0, 0.0
    assert "zeros" in fault(target, dense, fewer, None, counts_rows=True)
    assert "zeros" in fault(target, dense, more, None, counts_rows=True)
    assert fault(target, dense, more, None, counts_rows=True, more=True) == ""


def test_groups_of_n_to_m_are_counted_each():
    dense, target = torch.ones(1, 8), NM(2, 4)
    elsewhere = torch.tensor([[0.0, 0, 0, 1, 1, 1, 1, 0]])
    assert int((elsewhere == 0).sum()) == 4 and "zeros" in fault(target, dense, elsewhere, None, counts_rows=True)


@given(st.sampled_from(TARGETS), st.integers(0, 10), st.floats(0, 1))
def test_further_zeros_are_filled_with_dense_values(target, seed, share):
    """Whatever became zero beside the mask, and whatever was zero before."""
    generator = torch.Generator().manual_seed(seed)
    dense = dense_weight(seed) * (torch.rand(6, 16, generator=generator) > share / 2)
    mask = target.keep(dense.abs().masked_fill(dense == 0, -1))
    lost = dense * mask * (torch.rand(6, 16, generator=generator) > share)
    filled = with_exact_zeros(target, dense, lost, counts_rows=True)
    assert fault(target, dense, filled, None, counts_rows=True) == ""
    changed = filled != lost
    assert torch.equal(filled[changed], dense[changed])


def test_what_has_the_zeros_wanted_is_not_touched():
    dense, target = dense_weight(), Unstructured(0.5)
    pruned = 3 * dense * target.keep(dense.abs())
    assert with_exact_zeros(target, dense, pruned, counts_rows=True) is pruned


def test_methods_that_count_over_a_layer_are_judged_by_it():
    dense, target = dense_weight(), Unstructured(0.5)
    pruned = dense * Unstructured(0.5, "layer").keep(dense.abs())
    assert fault(target, dense, pruned, None, counts_rows=False) == ""
    assert fault(target, dense, pruned, None, counts_rows=True) != ""
