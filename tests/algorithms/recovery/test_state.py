"""A recovery that was interrupted ends as if it had not been."""

import io

import pytest
import torch
from support.models import same_bytes
from support.recovery import pruned_with_references, recovered

from optimum_si.algorithms.recovery.memory import Level, MemoryPlan
from optimum_si.algorithms.recovery.state import Saved
from optimum_si.algorithms.recovery.train import Clock


class Interrupted(Exception):
    """Raised where a test stops a recovery."""


def stopping_after(steps: int, kept: list[Saved]):
    """A ``save`` that goes through a file, and stops a recovery after so many steps."""

    def save(make):
        nonlocal steps
        steps -= 1
        if steps == 0:
            file = io.BytesIO()
            torch.save(make().to_dict(), file)
            file.seek(0)
            kept.append(Saved.from_dict(torch.load(file, weights_only=True)))
            raise Interrupted

    return save


@pytest.mark.parametrize("level", [Level.ADAM, Level.ADAFACTOR, Level.GROUPS])
@pytest.mark.parametrize("trains", ["weights", "scales"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_an_interrupted_recovery_ends_as_if_it_had_not_been(level, trains, dtype, steps):
    groups = [range(1), range(1, 2)] if level is Level.GROUPS else [range(2)]
    start = Saved(MemoryPlan(level, 1, groups))
    whole, references = pruned_with_references("llama-tied-biased", dtype)
    expected = recovered(whole, references, {"trains": trains}, resume=start)
    model, references = pruned_with_references("llama-tied-biased", dtype)
    kept: list[Saved] = []
    stop = stopping_after(min(steps, expected.steps), kept)
    with pytest.raises(Interrupted):
        recovered(model, references, {"trains": trains}, resume=start, save=stop)
    model, references = pruned_with_references("llama-tied-biased", dtype)
    result = recovered(model, references, {"trains": trains}, resume=kept[0])
    assert same_bytes(model, whole)
    assert (result.before, result.after, result.steps) == (expected.before, expected.after, expected.steps)
    assert result.seconds > kept[0].seconds > 0


def test_time_of_earlier_calls_counts():
    model, references = pruned_with_references("llama")
    spent = Saved(MemoryPlan(Level.ADAM, 0, [range(2)]), seconds=600.0)
    assert recovered(model, references, {"minutes": 5}, resume=spent).ended == "time"


def test_a_clock_goes_on_from_earlier_calls_and_leaves_time_for_the_last_evaluation():
    times = iter([0.0, 10.0, 10.0, 50.0])
    clock = Clock(limit=100.0, earlier=20.0, now=lambda: next(times))
    assert clock.seconds == 30.0
    assert clock.share(begun=20.0, reserve=20.0) == pytest.approx(10 / 60)
    assert clock.share(begun=60.0, reserve=20.0) == pytest.approx(10 / 20)
    assert clock.share(begun=90.0, reserve=20.0) == 1.0  # the part of this group is over before it begins
