"""What is allowed and costs far more than anybody expects is said before it starts."""

import warnings

import pytest
import torch
from support.models import tiny

from optimum_si import SIConfig
from optimum_si.pipeline.costs import warn_of_costs
from optimum_si.pipeline.plan import make_plan


def said(tokens=16, **recipe):
    plan = make_plan(SIConfig(**{"induction": None, **recipe}), tiny("llama"), write=True)
    example = {"input_ids": torch.zeros(1, 1, dtype=torch.long).expand(1, tokens)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_costs(plan, [example])
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("recipe", "name", "passes"),
    [
        ({"induction": {"epochs": 1000}}, "induction.epochs", "3,000"),
        ({"refine_epochs": 200}, "refine_epochs", "600"),
        ({"recovery": {"epochs": 200, "num_samples": 256}}, "recovery.epochs", "1,200"),
    ],
    ids=str,
)
def test_very_many_passes_are_said_with_their_option(recipe, name, passes):
    (message,) = said(**recipe)
    assert message.startswith(f"{name} makes this run about {passes} passes over its 1 calibration windows")


def test_very_many_tokens_are_said_with_their_memory():
    (message,) = said(tokens=2**31, calibration={"num_samples": 2**15, "sequence_length": 2**16})
    assert "num_samples=32,768" in message and "2,147,483,648 tokens" in message and "GB of memory" in message


@pytest.mark.parametrize("preset", ["fast", "best", "paper"])
def test_presets_are_nothing_to_warn_of(preset):
    assert not said(tokens=128 * 2048, **SIConfig.preset(preset, sparsity=0.5).to_dict())
