"""Every declared pair leaves the function as it was."""

import pytest
import torch
from support.models import DECLARED, UPCASTING, logits, random_scale, relative_change, tiny

from optimum_si.algorithms.induction.absorption import absorb
from optimum_si.algorithms.induction.scales import power_of_two
from optimum_si.algorithms.layers import view_factor
from optimum_si.errors import UnsupportedModelError
from optimum_si.models.scale_groups import linear_to_linear, query_with_key, score_only, value_to_output
from optimum_si.models.structure import find_structure
from optimum_si.models.weight_view import WeightView


def pairs(name):
    """Names of the channels that a family declares."""
    return [group.name for group in find_structure(tiny(name)).blocks[0].scale_groups]


PAIRS = [(name, pair) for name in DECLARED for pair in pairs(name)]


def scaled(name, dtype, scale_of, only=None):
    """The relative change of the logits when every block's pairs absorb a scale, and how many did."""
    model = tiny(name, dtype)
    before, count = logits(model), 0
    for block in find_structure(model).blocks:
        for group in block.scale_groups:
            if only in (None, group.name):
                absorb(group, scale_of(group))
                count += 1
    return relative_change(logits(model), before), count


def any_scale(group):
    return random_scale(group.size)


def rounded_scale(group):
    return power_of_two(random_scale(group.size), group.base)


@pytest.mark.parametrize(("name", "pair"), PAIRS)
def test_any_scale_of_one_pair_keeps_the_function(name, pair):
    change, count = scaled(name, torch.float64, any_scale, pair)
    assert count == 2 and change < (1e-6 if name in UPCASTING else 1e-10)


@pytest.mark.parametrize("name", DECLARED)
def test_any_scale_of_all_pairs_keeps_the_function_in_fp32(name):
    change, count = scaled(name, torch.float32, any_scale)
    assert count == 2 * len(pairs(name)) and change < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DECLARED)
def test_powers_of_two_move_no_bit_of_the_logits(name, dtype):
    model = tiny(name, dtype)
    before = logits(model)
    stored = {key: value.clone() for key, value in model.state_dict().items()}
    for block in find_structure(model).blocks:
        for group in block.scale_groups:
            absorb(group, rounded_scale(group))
    assert torch.equal(logits(model), before)
    assert any(not torch.equal(value, stored[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_half_precision_takes_factors_of_two_without_losing_a_bit(name):
    change, _ = scaled(name, torch.float16, lambda group: rounded_scale(group).clamp(0.5, 2))
    assert change == 0


@pytest.mark.parametrize("name", DECLARED)
def test_the_inverse_scale_restores_every_bit(name):
    model, original = tiny(name, torch.bfloat16), tiny(name, torch.bfloat16).state_dict()
    for block in find_structure(model).blocks:
        for group in block.scale_groups:
            absorb(group, rounded_scale(group))
            absorb(group, 1 / rounded_scale(group))
    assert all(torch.equal(value, original[key]) for key, value in model.state_dict().items())


def test_a_pair_of_rotated_channels_must_share_its_scale():
    model = tiny("llama", torch.float64)
    before = logits(model)
    attention = model.model.layers[0].self_attn
    query, key = (WeightView(name, getattr(attention, name)) for name in ("q_proj", "k_proj"))
    free = query_with_key("free", query, key, attention.head_dim, rotary_size=None)
    absorb(free, random_scale(free.size))
    assert relative_change(logits(model), before) > 1e-3


def test_rotated_pairs_of_each_convention_are_the_right_ones():
    query, key = (WeightView(name, torch.nn.Linear(4, 8)) for name in "qk")

    def entries(**kwargs):
        return query_with_key("q", query, key, 8, **kwargs).axes[0].index.tolist()

    assert entries(rotary_size=8) == [0, 1, 2, 3, 0, 1, 2, 3]
    assert entries(rotary_size=8, interleaved=True) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert entries(rotary_size=4) == [0, 1, 0, 1, 2, 3, 4, 5]
    assert entries(rotary_size=None) == list(range(8))


def test_query_heads_share_the_scale_of_their_value_head():
    value, output = WeightView("v", torch.nn.Linear(4, 4)), WeightView("o", torch.nn.Linear(8, 4))
    pair = value_to_output("v->o", value, output, head_size=2)
    assert pair.size == 4 and pair.consumers()[0].index.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]


def test_squared_relu_takes_the_root_on_its_producer():
    up, down = torch.nn.Linear(6, 8).double(), torch.nn.Linear(8, 6).double()
    pair = linear_to_linear("up->down", WeightView("up", up), WeightView("down", down), degree=2)
    x = torch.randn(5, 6, dtype=torch.float64)
    with torch.no_grad():
        before = down(up(x).relu().square())
        absorb(pair, random_scale(8))
        torch.testing.assert_close(down(up(x).relu().square()), before, rtol=1e-10, atol=1e-10)
    assert pair.base == 4


def test_channels_without_a_producer_refuse():
    with pytest.raises(UnsupportedModelError, match="'input of x'"):
        absorb(score_only("input of x", [WeightView("x", torch.nn.Linear(4, 4))]), torch.ones(4))


def test_the_factors_of_a_view_multiply():
    view = WeightView("x", torch.nn.Linear(4, 3))
    first, second = score_only("first", [view]), score_only("second", [view])
    scales = {"first": torch.full((4,), 2.0), "second": torch.full((4,), 3.0)}
    assert view_factor([first, second], scales, view, "columns").tolist() == [6.0] * 4
    assert view_factor([first, second], {}, view, "columns") is None
    assert view_factor([first, second], scales, view, "rows") is None
