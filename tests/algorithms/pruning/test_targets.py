"""Counts are exact whatever the ties, and thresholds lie where masks are cut."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimum_si.algorithms.pruning.targets import NM, Unstructured, make_target
from optimum_si.errors import ConfigurationError


SHAPES = {"rows": st.integers(1, 9), "columns": st.integers(1, 40)}
PATTERNS = st.sampled_from([(1, 2), (2, 4), (1, 4), (4, 8), (3, 5), (8, 20)])


def tied_score(rows, columns, values):
    """Scores of few distinct values; all equal where ``values`` is 1."""
    return torch.randint(values, (rows, columns), generator=torch.Generator().manual_seed(rows)).double()


@given(**SHAPES, sparsity=st.floats(0, 0.999), group=st.sampled_from(["row", "layer"]), values=st.integers(1, 5))
def test_every_group_loses_exactly_its_count_and_only_its_lowest(rows, columns, sparsity, group, values):
    score = tied_score(rows, columns, values)
    keep = Unstructured(sparsity, group).keep(score)
    assert keep.dtype == torch.bool and keep.shape == score.shape
    groups, scores = (keep, score) if group == "row" else (keep.reshape(1, -1), score.reshape(1, -1))
    assert ((~groups).sum(dim=1) == round(sparsity * groups.shape[1])).all()
    for kept, values_of_group in zip(groups, scores, strict=True):
        if kept.any() and not kept.all():
            assert values_of_group[kept].min() >= values_of_group[~kept].max()


@given(rows=st.integers(1, 6), groups=st.integers(1, 6), pattern=PATTERNS, values=st.integers(1, 4))
def test_every_group_of_a_pattern_keeps_its_n_highest(rows, groups, pattern, values):
    kept, of = pattern
    score = tied_score(rows, groups * of, values)
    keep = NM(kept, of).keep(score)
    assert (keep.reshape(-1, of).sum(dim=1) == kept).all()
    best = score.reshape(-1, of).sort(dim=1, descending=True).values[:, :kept].sum(dim=1)
    torch.testing.assert_close((score * keep).reshape(-1, of).sum(dim=1), best)


@pytest.mark.parametrize("target", [Unstructured(0.5), Unstructured(0.5, "layer"), NM(2, 4)], ids=str)
def test_among_equal_scores_the_lower_index_is_pruned_first(target):
    assert target.keep(torch.ones(1, 4)).tolist() == [[False, False, True, True]]


def test_a_layer_wide_target_may_empty_one_row():
    score = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert Unstructured(0.5, "layer").keep(score).tolist() == [[False, False], [True, True]]
    assert Unstructured(0.5, "row").keep(score).tolist() == [[False, True], [False, True]]


def above_the_cut(score, target):
    pruned, kept = target.neighbors(score)
    return (target.groups(score) > (pruned + kept)[:, None] / 2).reshape(score.shape)


@given(**SHAPES, sparsity=st.floats(0, 0.999), group=st.sampled_from(["row", "layer"]))
def test_a_threshold_cuts_where_the_mask_does(rows, columns, sparsity, group):
    score = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(columns))
    target = Unstructured(sparsity, group)
    assert torch.equal(above_the_cut(score, target), target.keep(score))


@given(rows=st.integers(1, 6), groups=st.integers(1, 6), pattern=PATTERNS)
def test_a_threshold_of_a_pattern_cuts_where_the_mask_does(rows, groups, pattern):
    kept, of = pattern
    score = torch.randn(rows, groups * of, dtype=torch.float64, generator=torch.Generator().manual_seed(rows))
    target = NM(kept, of)
    assert torch.equal(above_the_cut(score, target), target.keep(score))


def test_only_a_layer_wide_target_shares_its_threshold_between_rows():
    assert Unstructured(0.5, "layer").shares_rows
    assert not Unstructured(0.5, "row").shares_rows and not NM(2, 4).shares_rows


def test_a_recipe_gives_a_pattern_or_a_sparsity():
    assert make_target(None, "2:4", "layer") == NM(2, 4)
    assert make_target(0.7, None, "layer") == Unstructured(0.7, "layer")


def test_columns_that_no_group_fits_name_the_layer():
    NM(2, 4).check("some.layer", 8)
    with pytest.raises(ConfigurationError, match=r"multiple of 4.*'some\.layer' has 10.*exclude"):
        NM(2, 4).check("some.layer", 10)
