"""Orders of channels for N:M: never worse than the order that is there, the best one where all can be tried."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_si.algorithms.transforms.permutation import best_order, kept_fraction


def scores(rows, columns, seed, heavy=False):
    values = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    return values**8 if heavy else values


def kept(score, order, pattern):
    return float(kept_fraction(score[:, order].double(), *pattern))


@settings(max_examples=40, deadline=None)
@given(
    pattern=st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 4), (4, 8)]),
    groups=st.integers(1, 9),
    rows=st.integers(1, 20),
    seed=st.integers(0, 1000),
    heavy=st.booleans(),
)
def test_an_order_keeps_no_less_than_the_one_that_is_there(pattern, groups, rows, seed, heavy):
    score = scores(rows, groups * pattern[1], seed, heavy)
    order = best_order(score, *pattern)
    assert sorted(order.tolist()) == list(range(score.shape[1]))
    assert kept(score, order, pattern) >= kept(score, torch.arange(score.shape[1]), pattern) - 1e-6


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("pattern", [(1, 2), (1, 3), (2, 3)])
def test_two_groups_come_out_as_well_as_any_order(pattern, seed):
    score = scores(3, 2 * pattern[1], seed, heavy=True)
    best = max(kept(score, list(order), pattern) for order in permutations(range(score.shape[1])))
    found = kept(score, best_order(score, *pattern), pattern)
    # Single swaps: for groups of two each of the three partitions is one swap away from the others.
    assert found == pytest.approx(best, abs=1e-6) if pattern[1] == 2 else found >= 0.97 * best


def test_channels_that_compete_are_put_into_different_groups():
    score = torch.ones(5, 8) * 0.01
    score[:, :4] = 1.0
    assert kept(score, torch.arange(8), (2, 4)) == pytest.approx(0.5, abs=0.02)
    assert kept(score, best_order(score, 2, 4), (2, 4)) > 0.98


def test_the_kept_fraction_counts_the_highest_of_each_group():
    score = torch.tensor([[4.0, 1.0, 2.0, 3.0], [0.0, 5.0, 5.0, 0.0]])
    assert float(kept_fraction(score, 1, 2)) == pytest.approx(17 / 20)
    assert float(kept_fraction(score, 2, 4)) == pytest.approx(17 / 20)
    assert float(kept_fraction(score, 1, 4)) == pytest.approx(9 / 20)


def test_the_same_seed_gives_the_same_order():
    score = scores(16, 64, 3)
    assert torch.equal(best_order(score, 2, 4, seed=5), best_order(score, 2, 4, seed=5))
