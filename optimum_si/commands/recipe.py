"""The arguments that describe a recipe, shared by ``prune`` and ``induce``, and how they become an ``SIConfig``."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimum_si.config.fields import flagged, groups
from optimum_si.config.presets import PRESETS
from optimum_si.config.recipe import Recipe
from optimum_si.config.small_files import read_small
from optimum_si.errors import ConfigurationError

from .base import add_option, given


if TYPE_CHECKING:
    from optimum_si.config.si_config import SIConfig

_HEADINGS = {"calibration": "calibration data"}


def add_recipe_arguments(parser: ArgumentParser, without: tuple[str, ...] = ()) -> None:
    """The flags of a recipe's options, and what else a command needs that writes a checkpoint.

    Args:
        parser: the command's.
        without: names of options that the command decides by itself.
    """
    pruning = parser.add_argument_group("pruning")
    sections = {name: parser.add_argument_group(_HEADINGS.get(name, name)) for name in groups(Recipe)}
    exclusive: dict[str, Any] = {}
    for name, option in flagged(Recipe).items():
        section = sections.get(name, pruning)
        if name in without:
            continue
        if option.exclusive and option.exclusive not in exclusive:
            exclusive[option.exclusive] = section.add_mutually_exclusive_group()
        add_option(exclusive.get(option.exclusive, section), option)
    for name, kind in groups(Recipe).items():
        for option in flagged(kind).values():
            # A flag of the recipe, such as --seed, also sets the option of a group that has the same name.
            if option.key not in flagged(Recipe):
                add_option(sections[name], option)

    recipe = pruning.add_mutually_exclusive_group()
    recipe.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="a recipe by name: what the paper does, good and quick, or best; flags override what it says",
    )
    recipe.add_argument(
        "--config", type=Path, metavar="FILE", help="si_config.json, or a folder with one; flags override what it says"
    )
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the new checkpoint")
    output.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is already there")


def config_from_args(args: Namespace) -> "SIConfig":
    """The recipe of ``--config``, or the default one, changed by the flags that were given.

    Raises:
        ConfigurationError: when the file or the combination is not a valid recipe.
    """
    from optimum_si.config.command_line import apply_flags

    names = {option.key for kind in (Recipe, *groups(Recipe).values()) for option in flagged(kind).values()}
    config = apply_flags(_start(args), given(args, *names))
    if config.calibration.dataset is None:
        raise ConfigurationError(
            'there is no calibration data: give --dataset, such as wikitext2, c4 or "texts/*.txt".'
        )
    return config


def _start(args: Namespace) -> "SIConfig":
    """What the flags change: a preset, a file, or the defaults."""
    from optimum_si.config.si_config import SIConfig

    if args.preset is not None:
        return SIConfig.preset(args.preset, **given(args, "method", "sparsity", "pattern"))
    return SIConfig() if args.config is None else _read(args.config)


def _read(path: Path) -> "SIConfig":
    from optimum_si.config.si_config import SIConfig

    file = path / SIConfig.CONFIG_NAME if path.is_dir() else path
    try:
        try:
            values = json.loads(read_small(file))
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"is not JSON ({error}): give what SIConfig.save_pretrained wrote.") from error
        if not isinstance(values, dict):
            raise ConfigurationError(f"expected a JSON object, found {type(values).__name__}.")
        return SIConfig(**values)
    except (OSError, ValueError) as error:  # ConfigurationError and JSON's error are ValueErrors
        raise ConfigurationError(f"--config {file}: {error}") from error
