"""The flags that a card prints give the card's recipe."""

from argparse import ArgumentParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimum_si import SIConfig
from optimum_si.commands.prune import PruneCommand
from optimum_si.commands.recipe import config_from_args
from optimum_si.config.command_line import recipe_flags
from optimum_si.config.fields import Option, flagged, groups
from optimum_si.config.presets import PRESETS
from optimum_si.config.recipe import Recipe


WORD = st.from_regex(r"[a-z.*][a-z.* -]{0,6}", fullmatch=True)
BY_METAVAR = {"N": st.integers(2, 10**4), "F": st.floats(0, 0.99, exclude_min=True), "GLOB": WORD}


def values(option: Option) -> st.SearchStrategy:
    """Values that an option accepts and that its flag can say."""
    argument = option.type.argument
    if option.name == "pattern":
        return st.sampled_from(["2:4", "4:8", "1:4"])
    if "choices" in argument:
        value = st.sampled_from(
            [choice for choice in argument["choices"] if "nargs" not in argument or choice != "none"]
        )
    elif "metavar" in argument:
        value = BY_METAVAR.get(argument["metavar"], WORD)
    else:
        return st.booleans()
    return st.lists(value, min_size=1, max_size=3, unique=True) if "nargs" in argument else value


def some(kind: type, *without: str) -> st.SearchStrategy:
    flags = {name: option for name, option in flagged(kind).items() if name not in without}
    return st.fixed_dictionaries({}, optional={name: values(option) for name, option in flags.items()})


@st.composite
def recipes(draw) -> SIConfig:
    """The defaults or a preset with any of the options changed that have a flag."""
    preset = draw(st.sampled_from([None, *PRESETS]))
    changes = draw(some(Recipe, "induction"))
    if "pattern" in changes:
        changes.pop("sparsity", None)
    if changes.get("reconstruction") == "none" or (preset in (None, "paper") and "reconstruction" not in changes):
        changes["repair"] = "auto"
    changes["calibration"] = draw(some(groups(Recipe)["calibration"])) | {
        "dataset": "d",
        "seed": changes.get("seed", 0),
    }
    if preset in (None, "paper"):
        changes["induction"] = draw(st.none() | some(groups(Recipe)["induction"]))
    return SIConfig(**changes) if preset is None else SIConfig.preset(preset, **changes)


def parsed(flags: list[str]) -> SIConfig:
    parser = ArgumentParser()
    PruneCommand.parse_args(parser)
    return config_from_args(parser.parse_args(["-m", "model", "-o", "out", "--dataset", "d", *flags]))


@given(recipes())
@pytest.mark.slow
def test_the_flags_of_a_recipe_give_it_again(config):
    flags = recipe_flags(config)
    assert flags is not None
    assert parsed(flags) == config


def test_flags_of_recovery_do_not_meet_those_of_induction():
    config = parsed(["--recovery-epochs", "3", "--epochs", "2", "--recovery-num-samples", "7", "--num-samples", "9"])
    assert (config.recovery.epochs, config.induction.epochs) == (3, 2)
    assert (config.recovery.num_samples, config.calibration.num_samples) == (7, 9)
    assert parsed([]).recovery is None and recipe_flags(config) is not None


@pytest.mark.parametrize("changes", [
    {"damping": 0.5},
    {"induction": {"max_scale": 2.0}},
    {"seed": 1},  # --seed would seed the windows too
    {"exclude": "-x"},
], ids=str)  # fmt: skip
def test_a_recipe_that_flags_cannot_say_has_none(changes):
    assert recipe_flags(SIConfig(calibration={"dataset": "d"}, **changes)) is None


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_said_by_its_name(name):
    config = SIConfig.preset(name, pattern="2:4", calibration={"dataset": "d"})
    assert recipe_flags(config) == ["--preset", name, "--pattern", "2:4"]
