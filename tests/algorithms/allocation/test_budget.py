"""Zeros shared out over layers add up to the budget, and go where they cost least."""

from itertools import product
from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimum_si.algorithms.allocation.budget import Part, by_errors, by_outliers, whole_zeros
from optimum_si.algorithms.pruning.targets import NM, Unstructured


SHAPES = st.lists(st.tuples(st.sampled_from([16, 32, 48, 64]), st.sampled_from([32, 64, 96])), min_size=3, max_size=12)
TARGETS = [Unstructured(0.5), Unstructured(0.7), Unstructured(0.6, "layer"), NM(2, 4), NM(4, 8), NM(1, 4)]


def parts_of(target, shapes, low, high):
    lowest, highest = target.with_sparsity(low), target.with_sparsity(high)
    return [Part(target.granularity(*shape), lowest.zeros(*shape), highest.zeros(*shape)) for shape in shapes]


@settings(max_examples=150, deadline=None)
@given(shapes=SHAPES, target=st.sampled_from(TARGETS), data=st.data())
def test_zeros_add_up_to_those_of_the_uniform_target(shapes, target, data):
    nm = isinstance(target, NM)
    low, high = (1 / target.of, 1 - 1 / target.of) if nm else (target.sparsity - 0.15, target.sparsity + 0.15)
    shares = [data.draw(st.floats(low, high)) for _ in shapes]
    parts, sizes = parts_of(target, shapes, low, high), [rows * columns for rows, columns in shapes]
    budget = sum(target.zeros(*shape) for shape in shapes)
    zeros = whole_zeros(shares, sizes, parts, budget, fewer=not nm)
    for count, part in zip(zeros, parts, strict=True):
        assert part.lowest <= count <= part.highest and count % part.granularity == 0
    if nm:
        # Grains are large and few: as near as whole layers come, and never fewer zeros.
        assert budget <= sum(zeros) < budget + max(part.granularity for part in parts)
    else:
        assert sum(zeros) == budget
    for count, size, shape in zip(zeros, sizes, shapes, strict=True):
        assert target.with_sparsity(count / size).zeros(*shape) == count


@settings(max_examples=50, deadline=None)
@given(shapes=SHAPES, budget_share=st.floats(0.56, 0.64), data=st.data())
def test_a_budget_that_rows_cannot_meet_is_met_to_half_of_their_common_divisor(shapes, budget_share, data):
    target = Unstructured(0.6)
    shares = [data.draw(st.floats(0.45, 0.75)) for _ in shapes]
    sizes = [rows * columns for rows, columns in shapes]
    budget = round(budget_share * sum(sizes))
    zeros = whole_zeros(shares, sizes, parts_of(target, shapes, 0.45, 0.75), budget)
    common = gcd(*(rows for rows, _ in shapes))
    assert abs(sum(zeros) - budget) <= common / 2


def test_a_large_part_gives_up_what_several_small_ones_take():
    target, shapes = Unstructured(0.5), [(64, 32), (48, 32), (48, 32), (48, 32)]
    budget = sum(target.zeros(*shape) for shape in shapes)
    sizes = [rows * columns for rows, columns in shapes]
    parts = parts_of(target, shapes, 0.35, 0.65)
    assert sum(whole_zeros([0.625, 0.375, 0.375, 0.375], sizes, parts, budget)) == budget


def test_shares_that_fit_stay_as_they_are():
    parts = [Part(8, 0, 64), Part(8, 0, 64), Part(16, 0, 128)]
    assert whole_zeros([0.25, 0.75, 0.5], [64, 64, 128], parts, 16 + 48 + 64) == [16, 48, 64]


@settings(max_examples=50, deadline=None)
@given(
    ratios=st.lists(st.floats(0, 0.1), min_size=2, max_size=8),
    size=st.lists(st.integers(1, 100), min_size=8, max_size=8),
)
def test_more_outliers_get_fewer_zeros_within_the_band(ratios, size):
    sizes = size[: len(ratios)]
    shares = by_outliers(ratios, sizes, 0.6, 0.08)
    mean = sum(share * count for share, count in zip(shares, sizes, strict=True)) / sum(sizes)
    assert mean == pytest.approx(0.6) and all(0.52 - 1e-9 <= share <= 0.68 + 1e-9 for share in shares)
    for (one, left), (other, right) in product(zip(ratios, shares, strict=True), repeat=2):
        assert left <= right + 1e-12 if one >= other else left >= right - 1e-12


@pytest.mark.parametrize("ratio", [0.01, 0.1 + 0.2, 1.3e-87, 0.0])
def test_equal_outliers_are_uniform(ratio):
    # Their weighted mean may be another number than they are, by rounding.
    assert by_outliers([ratio] * 3, [4, 9, 12], 0.5, 0.08) == [0.5] * 3


@settings(max_examples=50, deadline=None)
@given(steepness=st.lists(st.floats(0.1, 10), min_size=2, max_size=6), target=st.floats(0.4, 0.7))
def test_steeper_curves_get_fewer_zeros(steepness, target):
    levels = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    curves = [[steep * level**3 for level in levels] for steep in steepness]
    shares = by_errors(levels, curves, [100] * len(curves), target)
    assert sum(shares) / len(shares) == pytest.approx(target)
    for (one, left), (other, right) in product(zip(steepness, shares, strict=True), repeat=2):
        assert left <= right + 1e-9 if one > other else left >= right - 1e-9 or one == other


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_other_choice_of_levels_has_a_smaller_error(data):
    levels = [0.25, 0.5, 0.75]
    curves = [sorted(data.draw(st.lists(st.floats(0, 1), min_size=3, max_size=3))) for _ in range(3)]
    sizes = [data.draw(st.integers(1, 5)) for _ in range(3)]
    chosen = data.draw(st.tuples(*[st.integers(0, 2)] * 3))
    target = sum(levels[level] * size for level, size in zip(chosen, sizes, strict=True)) / sum(sizes)

    def error(share, curve):
        """Of the lower convex hull, at a share between levels."""
        middle = min(curve[1], (curve[0] + curve[2]) / 2)
        start, stop, at = (curve[0], middle, 0.25) if share <= 0.5 else (middle, curve[2], 0.5)
        return start + (stop - start) * (share - at) / 0.25

    shares = by_errors(levels, curves, sizes, target)
    assert sum(share * size for share, size in zip(shares, sizes, strict=True)) == pytest.approx(target * sum(sizes))
    found = sum(error(share, curve) for share, curve in zip(shares, curves, strict=True))
    assert found <= sum(error(levels[level], curve) for level, curve in zip(chosen, curves, strict=True)) + 1e-9
