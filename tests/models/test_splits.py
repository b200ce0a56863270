"""Rows of fused layers, by the layouts that models have."""

import pytest
import torch
from torch import nn

from optimum_si.models.splits import alternating, by_size, halves, per_head, split_views
from optimum_si.models.weight_view import WeightView, linear_views


LAYOUTS = {
    "by size": (by_size(q=6, k=3, v=3), {"q": range(6), "k": range(6, 9), "v": range(9, 12)}),
    "per head": (per_head(2, q=2, k=2, v=2), {"q": [0, 1, 6, 7], "k": [2, 3, 8, 9], "v": [4, 5, 10, 11]}),
    "grouped": (per_head(2, q=4, k=1, v=1), {"q": [0, 1, 2, 3, 6, 7, 8, 9], "k": [4, 10], "v": [5, 11]}),
    "one group": (per_head(1, q=6, k=3, v=3), {"q": range(6), "k": range(6, 9), "v": range(9, 12)}),
    "alternating": (alternating("gate", "up"), {"gate": range(0, 12, 2), "up": range(1, 12, 2)}),
    "halves": (halves("gate", "up", 12), {"gate": range(6), "up": range(6, 12)}),
}


def parts_of(split):
    block = nn.ModuleDict({"fused": nn.Linear(5, 12), "other": nn.Linear(5, 4)})
    views = {view.name: view for view in linear_views(block, "")}
    return block["fused"], split_views(views, {"fused": split, "missing": split})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_part_is_its_rows(layout):
    split, rows = LAYOUTS[layout]
    fused, views = parts_of(split)
    assert list(views) == [*(f"fused.{name}" for name in rows), "other"]
    for name, expected in rows.items():
        view = views[f"fused.{name}"]
        assert (view.part, view.owner, view.module) == (name, "fused", fused)
        assert torch.equal(view.read(), fused.weight[list(expected)]) and view.shape == (len(expected), 5)
        assert torch.equal(view.read_bias(), fused.bias[list(expected)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_read_can_be_written(layout):
    fused, views = parts_of(LAYOUTS[layout][0])
    before = {name: value.detach().clone() for name, value in fused.state_dict().items()}
    for view in views.values():
        view.write(view.read())
        view.write_bias(view.read_bias())
    assert all(torch.equal(value, before[name]) for name, value in fused.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_parts_are_put_into_one_parameter(layout):
    split, rows = LAYOUTS[layout]
    fused, views = parts_of(split)
    weight, values = fused.weight.detach().clone(), {}
    for number, name in enumerate(rows):
        view = views[f"fused.{name}"]
        view.override(values, "fused.", (number + 2) * view.read(), torch.zeros(view.shape[0]))
    factor = torch.ones(12, 1)
    for number, expected in enumerate(rows.values()):
        factor[list(expected)] = number + 2
    assert torch.equal(values["fused.weight"], weight * factor) and not values["fused.bias"].any()
    assert torch.equal(fused.weight, weight)


def test_a_layer_that_is_not_split_keeps_its_view():
    view = WeightView("other", nn.Linear(5, 4))
    assert split_views({"other": view}, {}) == {"other": view} and view.owner == "other"
