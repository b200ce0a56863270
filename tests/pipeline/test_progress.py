"""The time that a bar says is left, against runs whose length is known."""

import io
import random
import re

import pytest
from support.models import calibration, tiny

from optimum_si import SIConfig, SIPruner
from optimum_si.pipeline.progress import BlockBar, seconds_left


def shown_after(seconds: list[float], done: int, then: tuple[str, ...] = ()) -> str:
    """The last line that a bar drew when ``done`` blocks had taken the first of these times."""
    now = 0.0
    with BlockBar("prune", ["block"] * len(seconds), then, lambda: now, file=io.StringIO(), mininterval=0) as bar:
        for cost in seconds[:done]:
            now += cost
            bar.update()
        return str(bar)


def left_in(line: str) -> float:
    """Seconds that a line of a bar says are left."""
    hours, minutes, seconds = re.search(r"<(?:(\d+):)?(\d+):(\d+)", line).groups()
    return 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)


@pytest.mark.parametrize("start_up", [0.5, 1.0, 2.0, 8.0])
def test_after_the_second_block_the_time_left_is_right_within_a_quarter(start_up):
    noise = random.Random(0)
    seconds = [20.0 * start_up] + [20.0 * noise.uniform(0.9, 1.1) for _ in range(29)]
    for done in range(2, 29):
        left = left_in(shown_after(seconds, done))
        assert left == pytest.approx(sum(seconds[done:]), rel=0.25, abs=1), f"after {done} blocks"


def test_before_the_first_block_nothing_is_said_and_after_it_what_it_took():
    assert seconds_left(["a"] * 3, []) is None
    assert "<?" in shown_after([5.0] * 4, 0)
    assert left_in(shown_after([5.0] * 4, 1)) == 15


def test_blocks_that_are_left_dense_are_not_expected_to_cost_what_others_do():
    """Such as with ``exclude="*.layers.0.*"``, or a model whose first blocks are not like the others."""
    kinds = ["dense", "dense"] + ["pruned"] * 4 + ["dense"]
    assert seconds_left(kinds, [3.0, 1.0, 10.0]) == 3 * 10 + 1
    assert seconds_left(kinds, [3.0, 1.0]) == 5 * 1, "all that is known"
    assert seconds_left(["a", "b", "b", "a"], [6.0, 2.0]) == 2 + 6, "the first, where it is the only one of its kind"


def test_a_later_phase_is_said_not_to_be_counted():
    assert shown_after([5.0] * 4, 2, ("recovery",)).startswith("prune (time left until recovery):")
    assert shown_after([5.0] * 4, 2).startswith("prune:")


def test_a_run_counts_its_blocks(capsys):
    SIPruner(tiny("llama")).prune(SIConfig("magnitude", induction=None), calibration(""))
    assert re.search(r"prune: 100%.*2/2", capsys.readouterr().err)


def test_a_run_with_recovery_says_that_the_time_left_is_that_until_it(capsys):
    config = SIConfig("magnitude", induction=None, recovery=True)
    SIPruner(tiny("llama")).prune(config, calibration(""))
    assert re.search(r"prune \(time left until recovery\): 100%.*2/2", capsys.readouterr().err)
