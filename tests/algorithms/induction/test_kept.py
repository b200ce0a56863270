"""What is learned of the weights that are left: at its start nothing changes, and then what it says."""

import torch
from support.models import correlated_tokens, moments_of, random_weight

from optimum_si.algorithms.induction.kept import Kept
from optimum_si.algorithms.layers import Layer, finished
from optimum_si.algorithms.pruning.targets import Unstructured
from optimum_si.models.weight_view import WeightView


def layer(shift=True):
    module = torch.nn.Linear(16, 8).double()
    moments = moments_of(correlated_tokens() + 1)
    return Layer(
        WeightView("x", module), random_weight().double(), module.bias.detach(), moments, Unstructured(0.5), shift
    )


def factors(size, seed):
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_factors_of_one_and_no_changes_leave_everything_as_it_is():
    own, pruned = layer(shift=False), random_weight(seed=6).double()
    zeros = {"x": torch.zeros(8).double()}, {"x": torch.zeros(16).double()}
    weight, bias = finished(own, pruned, Kept(*zeros).scaling())
    assert torch.equal(weight, pruned) and torch.equal(bias, own.bias)


def test_rows_columns_and_biases_are_applied_as_they_are_kept():
    own, pruned = layer(), random_weight(seed=6).double()
    rows, columns, change = factors(8, 1), factors(16, 2), factors(8, 3)
    kept = Kept({"x": rows}, {"x": columns}, {"x": change}, shifted=True)
    weight, bias = finished(own, pruned, kept.scaling())
    torch.testing.assert_close(weight, rows.exp()[:, None] * pruned * columns.exp())
    torch.testing.assert_close(bias, own.bias + (own.weight - weight) @ own.mean + change)
    scaling = kept.copied({"in": torch.ones(16)})
    torch.testing.assert_close(finished(own, pruned, scaling), (weight, bias))
    assert scaling.bias_change["x"] is not change and "in" in scaling.scales


def test_half_of_the_way_is_the_root_of_the_factors():
    kept = Kept({"x": factors(8, 1)}, {"x": factors(16, 2)}).copied({})
    half = kept.part_of_the_way(0.5)
    torch.testing.assert_close(half.rows["x"].square(), kept.rows["x"])
    torch.testing.assert_close(half.columns["x"].square(), kept.columns["x"])
