"""A recovery takes the most thorough level that fits into the memory that is free."""

import pytest
import torch
from support.models import tiny

from optimum_si.algorithms.recovery.memory import USABLE, Demand, Level, activations_of, free_memory


def demand(**changes):
    values = {
        "blocks": [1000] * 4,
        "others": 10,
        "frozen": 500,
        "itemsize": 4,
        "activations": [2000] * 4,
        "hidden": 50,
    }
    return Demand(**{**values, **changes})


def test_less_memory_never_takes_a_higher_level():
    order = list(Level)
    plans = [demand().plan(free) for free in range(200_000, 0, -500)]
    levels = [order.index(plan.level) for plan in plans]
    assert levels == sorted(levels) and set(levels) == set(range(len(order)))
    of_adam = [plan.checkpointed for plan in plans if plan.level is Level.ADAM]
    assert of_adam == sorted(of_adam) and set(of_adam) == {2, 3, 4}  # two blocks are what activations may take
    assert plans[-1].checkpointed == 4


@pytest.mark.parametrize("free", range(5_000, 200_000, 5_000))
def test_what_is_planned_fits(free):
    plan = demand().plan(free)
    copies = {Level.ADAM: 4, Level.ADAFACTOR: 2, Level.GROUPS: 4, Level.OFF: 0}[plan.level]
    largest = max((1000 * len(group) for group in plan.groups), default=0)
    assert 4 * copies * largest <= USABLE * free


def test_groups_hold_every_block_once_and_in_order():
    for free in range(20_000, 60_000, 1_000):
        plan = demand().plan(free)
        if plan.level is not Level.OFF:
            assert [index for group in plan.groups for index in group] == [0, 1, 2, 3]


def test_models_in_half_precision_need_room_for_their_masters():
    free = next(free for free in range(0, 10**6, 500) if demand().plan(free).level is Level.ADAM)
    assert demand(itemsize=2, frozen=10**5).plan(free).level is not Level.ADAM


def test_where_nothing_fits_the_plan_says_what_would():
    plan = demand().plan(1000)
    assert plan.level is Level.OFF and demand().plan(plan.needed + 1).level is not Level.OFF


def test_activations_grow_with_tokens_and_there_is_free_memory():
    block = tiny("llama").model.layers[0]
    assert activations_of(block, 20) == 2 * activations_of(block, 10) > 0
    assert 2**20 < free_memory(torch.device("cpu")) < 2**50


def test_blocks_that_compute_in_16_bits_keep_more_activations():
    sizes = range(20_000, 200_000, 500)
    usual, narrow = ([demand(narrow=narrow).plan(free) for free in sizes] for narrow in (False, True))
    pairs = [pair for pair in zip(usual, narrow, strict=True) if pair[0].level is pair[1].level is Level.ADAM]
    assert all(second.checkpointed <= first.checkpointed for first, second in pairs)
    assert any(second.checkpointed < first.checkpointed for first, second in pairs)
