"""An option is declared once, and everything that speaks of options knows it."""

import inspect
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path

import pytest

from optimum_si import CalibrationConfig, ConfigurationError, InductionConfig, RecoveryConfig, SIConfig
from optimum_si.commands.prune import PruneCommand
from optimum_si.config.command_line import recipe_flags
from optimum_si.config.fields import Configuration, configuration, flagged, groups, option, options
from optimum_si.config.option_types import OptionType, boolean, integer, read_integer, read_number
from optimum_si.config.recipe import Recipe
from optimum_si.config.validators import matches


REFERENCE = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
KINDS = (SIConfig, InductionConfig, CalibrationConfig, RecoveryConfig)
ALL = [(kind, name) for kind in KINDS for name in options(kind)]
#: Where a value other than the default is not seen from the option's type.
VALUES = {"pattern": "2:4", "repair": 0.5, "induction": None, "recovery": True, "sparsity": 0.25, "minutes": 5.0}
#: What an option needs beside it.
WITH = {"repair": {"reconstruction": "exact"}, "epochs": {}, "seed": {"calibration": {"seed": 1}}}


def another_value(name: str, type: OptionType, default):
    if name in VALUES:
        return VALUES[name]
    argument = type.argument
    if "choices" in argument:
        value = next(value for value in argument["choices"] if value not in (default, "none"))
    elif argument.get("type") is read_integer:
        value = 2 * default + 1
    elif argument.get("type") is read_number:
        value = default / 2
    else:
        value = not default if isinstance(default, bool) else "a"
    return [value] if "nargs" in argument else value


@pytest.mark.parametrize("kind, name", ALL, ids=[f"{kind.__name__}.{name}" for kind, name in ALL])
def test_everything_that_speaks_of_options_knows_it(kind, name):
    known = options(kind)[name]
    assert f"\n| `{name}` | " in REFERENCE
    assert f"\n    {name}: " in kind.__doc__ and name in inspect.signature(kind).parameters
    if not known.has_flag:
        return
    parser = ArgumentParser()
    PruneCommand.parse_args(parser)
    assert f" {known.flag}" in parser.format_help() and f"`{known.flag}`" in REFERENCE
    if name == "dataset":
        return  # stands in every command, beside the flags
    values = {name: another_value(name, known.type, known.default)}
    if kind is not SIConfig:
        values = {kind.GROUP: values, **({"seed": 1} if name == "seed" else {})}
    flags = recipe_flags(SIConfig(**{**WITH.get(name, {}), **values}))
    assert flags is not None and (known.flag in flags or name == "recovery")  # of which one flag is enough


@pytest.mark.parametrize("kind, name", ALL, ids=[f"{kind.__name__}.{name}" for kind, name in ALL])
def test_a_value_of_no_use_is_refused_by_name(kind, name):
    value = object()
    with pytest.raises(ConfigurationError) as caught:
        kind(**{name: value})
    assert f"{name}={value!r}" in str(caught.value)


def test_a_flag_has_help():
    kinds = [Recipe, *groups(Recipe).values()]
    assert all(known.help or name in flagged(Recipe) for kind in kinds for name, known in flagged(kind).items())


@configuration
class Toys(Configuration):
    """A box.

    Raises:
        ConfigurationError: on a broken toy.
    """

    GROUP = "toys"

    balls: int = option(default=1, type=integer(minimum=0), help="how many `balls`")
    closed: bool = option(default=False, type=boolean(), help="unused", detail="shut.")


def test_a_configuration_refuses_unknown_names_and_wrong_values_and_tells_its_options():
    assert Toys(2).balls == 2 and Toys(closed=True) == Toys(1, True)
    with pytest.raises(ConfigurationError, match="^toys has no 'ball'; it takes 'balls', 'closed'.$"):
        Toys(ball=1)
    with pytest.raises(ConfigurationError, match="^toys.balls=-1: expected a whole number of at least 0.$"):
        Toys(balls=-1)
    toys = Toys()
    toys.closed = 1
    with pytest.raises(ConfigurationError, match="^toys.closed=1: expected True or False.$"):
        toys.validate()
    assert inspect.getdoc(Toys).splitlines()[2:6] == [
        "Args:",
        "    balls: how many ``balls``",
        "    closed: shut.",
        "",
    ]
    assert str(inspect.signature(Toys)) == "(balls: int = 1, closed: bool = False) -> None"


def test_only_declared_options_count():
    @dataclass
    class Mixed(Toys):
        other: int = 3

    assert list(options(Mixed)) == ["balls", "closed"]


def test_globs_match_alike_on_every_platform():
    assert matches("layers.0.mlp.up", ["*.attn.*", "*.mlp.*"]) and matches("a/b", ["a/*"])
    assert not matches("layers.0.MLP.up", ["*.mlp.*"]) and not matches("anything", [])
