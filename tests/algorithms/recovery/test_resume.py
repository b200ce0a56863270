"""What was kept of a recovery is doubted: what is not of this model is said, passed over, and changes nothing."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from support.models import same_bytes
from support.recovery import pruned_with_references, recovered

from optimum_si.algorithms.recovery.memory import Level, MemoryPlan
from optimum_si.algorithms.recovery.state import Saved


SETTINGS = {"epochs": 1, "learning_rate": 1e-3}
GROUPS = [range(1), range(1, 2)]


class Interrupted(Exception):
    """Raised where a test stops a recovery."""


def kept_after(steps, **options):
    """The state of a recovery after so many steps."""
    model, references = pruned_with_references("llama-tied-biased")
    found = []

    def save(make):
        found.append(copy.deepcopy(make().to_dict()))
        if len(found) == steps:
            raise Interrupted

    with pytest.raises(Interrupted):
        recovered(model, references, {**SETTINGS, **options.pop("settings", {})}, save=save, **options)
    return found[-1]


@pytest.fixture(scope="module")
def state():
    return kept_after(3)


@pytest.fixture(scope="module")
def expected():
    model, references = pruned_with_references("llama-tied-biased")
    return model, recovered(model, references, SETTINGS)


def of_phase(part, change):
    """A change of every tensor in a part of the phase."""

    def changed(state):
        state["phase"][part] = {name: change(value) for name, value in state["phase"][part].items()}

    return changed


def of_optimizer(change):
    def changed(state):
        for entry in state["phase"]["optimizer"]["state"].values():
            entry.update({name: change(value) for name, value in entry.items()})

    return changed


def field(name, value):
    return lambda state: state.update({name: value})


def of_plan(name, value):
    return lambda state: state["plan"].update({name: value})


def in_phase(name, value):
    return lambda state: state["phase"].update({name: value})


def option(name, value):
    return lambda state: state["phase"]["optimizer"]["param_groups"][0].update({name: value})


HOSTILE = {
    "seconds that are text": field("seconds", "x"),
    "seconds NaN": field("seconds", math.nan),
    "seconds before the start": field("seconds", -1e30),
    "more steps than there are": field("steps", 10**400),
    "a group that is none": field("group", 5),
    "a group before the first": field("group", -1),
    "a group that is done": field("group", 1),
    "others finished": field("finished", {"x": torch.ones(3)}),
    "a list of finished": field("finished", [1]),
    "a loss before the first group": field("before", 0.5),
    "a phase that is a list": field("phase", [1]),
    "another field": in_phase("evil", 1),
    "no memory": of_plan("level", "OFF"),
    "negative checkpointing": of_plan("checkpointed", -1),
    "no groups": of_plan("groups", []),
    "groups of another model": of_plan("groups", [[0, 10**12]]),
    "part of the model": of_plan("groups", [[0, 1]]),
    "all blocks three times": of_plan("groups", [[0, 2]] * 3),
    "empty groups": of_plan("groups", [[0, 0]] * 1000),
    "a step beyond the last": in_phase("step", 10**9),
    "a step that is half": in_phase("step", 0.5),
    "a loss of minus infinity": in_phase("best", -math.inf),
    "a loss that is text": in_phase("best", "0"),
    "rates NaN": in_phase("rates", [math.nan]),
    "rates of fewer": in_phase("rates", [0.1]),
    "an end with markup": in_phase("ended", "<b>\x1b[31m"),
    "nothing kept": in_phase("kept", {}),
    "kept NaN": of_phase("kept", lambda value: value * math.nan),
    "kept dense": of_phase("kept", torch.ones_like),
    "kept zero": of_phase("kept", torch.zeros_like),
    "kept of another shape": of_phase("kept", lambda value: torch.ones(1)),
    "kept of another dtype": of_phase("kept", lambda value: value.to(torch.complex64)),
    "kept without values": of_phase("kept", lambda value: value.to("meta")),
    "kept sparse": of_phase("kept", lambda value: value.to_sparse()),
    "kept text": of_phase("kept", lambda value: "x"),
    "values NaN": of_phase("values", lambda value: value * math.nan),
    "values dense": of_phase("values", torch.ones_like),
    "an optimizer that is a list": in_phase("optimizer", [1]),
    "an optimizer of NaN": of_optimizer(lambda value: value * math.nan),
    "an optimizer of another shape": of_optimizer(lambda value: torch.ones(3)),
    "an optimizer of text": of_optimizer(lambda value: "x"),
    "an optimizer with other options": option("maximize", True),
    "an optimizer with options of text": option("eps", "x"),
    "an optimizer of other parameters": option("params", [5, 5]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_state_that_is_not_of_this_model_is_passed_over(state, expected, name):
    changed = copy.deepcopy(state)
    HOSTILE[name](changed)
    model, references = pruned_with_references("llama-tied-biased")
    with pytest.warns(UserWarning, match="is not of this one .*: it begins anew") as said:
        result = recovered(model, references, SETTINGS, resume=Saved.from_dict(changed))
    assert all(str(one.message).count("\n") == 0 for one in said)
    whole, found = expected
    assert same_bytes(model, whole) and replace(result, seconds=0) == replace(found, seconds=0)


@pytest.mark.parametrize("level", [Level.ADAM, Level.ADAFACTOR, Level.GROUPS])
@pytest.mark.parametrize("trains", ["weights", "scales"])
def test_one_that_is_goes_on(recwarn, level, trains):
    groups = GROUPS if level is Level.GROUPS else [range(2)]
    start = Saved(MemoryPlan(level, 0, groups))
    state = kept_after(6, settings={"trains": trains}, resume=start)
    model, references = pruned_with_references("llama-tied-biased")
    recovered(model, references, {**SETTINGS, "trains": trains}, resume=Saved.from_dict(state))
    assert not [one for one in recwarn if "begins anew" in str(one.message)]


def test_factors_that_would_prune_more_are_passed_over():
    state = kept_after(3, settings={"trains": "scales"})
    state["phase"]["kept"] = {
        name: torch.zeros_like(value) if name.endswith("row_scale") else value
        for name, value in state["phase"]["kept"].items()
    }
    model, references = pruned_with_references("llama-tied-biased")
    with pytest.warns(UserWarning, match="row_scale has other zeros"):
        recovered(model, references, {**SETTINGS, "trains": "scales"}, resume=Saved.from_dict(state))
