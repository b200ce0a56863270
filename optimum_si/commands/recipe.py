"""The arguments that describe a recipe, shared by ``prune`` and ``induce``, and how they become an ``SIConfig``."""

import json
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from optimum_si.config import recipe_flags
from optimum_si.config.choices import (
    ALLOCATIONS,
    METHODS,
    QUANTIZATIONS,
    RECONSTRUCTIONS,
    TRANSFORMATIONS,
    parse_pattern,
)
from optimum_si.config.presets import PRESETS
from optimum_si.errors import ConfigurationError

from .base import add_data_arguments, given


if TYPE_CHECKING:
    from optimum_si.config.si_config import SIConfig


def add_recipe_arguments(parser: ArgumentParser, induction_is_optional: bool) -> None:
    """Every default is None, so that a flag overrides ``--config`` only where it is given."""
    pruning = parser.add_argument_group("pruning")
    pruning.add_argument("--method", choices=METHODS, help="how weights are chosen (default: sparsegpt)")
    target = pruning.add_mutually_exclusive_group()
    target.add_argument("--sparsity", type=float, metavar="F", help="share of zeros, in [0, 1) (default: 0.5)")
    target.add_argument(
        "--pattern", type=_pattern, metavar="N:M", help="at most N non-zeros in every M consecutive weights: 2:4, 4:8"
    )
    pruning.add_argument(
        "--reconstruction",
        choices=RECONSTRUCTIONS,
        help="fit the kept weights to the dense output: on the method's mask, or on a better one (default: none)",
    )
    pruning.add_argument(
        "--repair",
        type=_share_or_auto,
        metavar="F",
        help="with --reconstruction: how far a layer repairs what earlier ones broke, in [0, 1] (default: auto)",
    )
    pruning.add_argument(
        "--refine-epochs", type=int, metavar="N", help="learn the kept weights of each block afterwards (default: 0)"
    )
    pruning.add_argument(
        "--swaps", action=BooleanOptionalAction, help="exchange kept for pruned weights while that helps"
    )
    pruning.add_argument(
        "--allocation", choices=ALLOCATIONS, help="how zeros are shared out over layers (default: uniform)"
    )
    pruning.add_argument(
        "--transformations",
        nargs="+",
        choices=(*TRANSFORMATIONS, "none"),
        help="first reshape the model, whose function stays: rotate its residual stream or its heads, permute its "
        "channels (for patterns)",
    )
    pruning.add_argument(
        "--quantization", choices=QUANTIZATIONS, help="round to the grid of such an export (default: none)"
    )
    pruning.add_argument("--include", nargs="+", metavar="GLOB", help="prune only modules whose name matches")
    pruning.add_argument("--exclude", nargs="+", metavar="GLOB", help="keep modules dense whose name matches")
    pruning.add_argument("--seed", type=int, metavar="N", help="of every random choice (default: 0)")
    recipe = pruning.add_mutually_exclusive_group()
    recipe.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="a recipe by name: what the paper does, good and quick, or best; flags override what it says",
    )
    recipe.add_argument(
        "--config", type=Path, metavar="FILE", help="si_config.json, or a folder with one; flags override what it says"
    )

    induction = parser.add_argument_group("induction")
    induction.add_argument("--epochs", type=int, metavar="N", help="passes over the calibration data (default: 5)")
    induction.add_argument("--learning-rate", type=float, metavar="F", help="of the channel scales (default: 0.01)")
    if induction_is_optional:
        induction.add_argument("--no-induction", action="store_true", help="prune the model as it is")

    calibration = parser.add_argument_group("calibration data")
    add_data_arguments(calibration, "text that shows the model at work", split="train")
    calibration.add_argument("--num-samples", type=int, metavar="N", help="windows to draw (default: 128)")

    output = parser.add_argument_group("output")
    output.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the new checkpoint")
    output.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is already there")


def config_from_args(args: Namespace) -> "SIConfig":
    """The recipe of ``--config``, or the default one, changed by the flags that were given.

    Raises:
        ConfigurationError: when the file or the combination is not a valid recipe.
    """
    from optimum_si.config.si_config import SIConfig

    changes = given(args, *recipe_flags.PLAIN, "sparsity", "pattern")
    recipe = SIConfig.from_dict(_start(args).to_dict(), **changes).to_dict()
    recipe["calibration"].update(given(args, *recipe_flags.CALIBRATION))

    learning = given(args, *recipe_flags.INDUCTION)
    if getattr(args, "no_induction", False):
        if learning:
            raise ConfigurationError("--no-induction contradicts --epochs and --learning-rate: drop one of them.")
        recipe["induction"] = None
    elif learning:
        recipe["induction"] = {**(recipe["induction"] or {}), **learning}
    if recipe["calibration"]["dataset"] is None:
        raise ConfigurationError(
            'there is no calibration data: give --dataset, such as wikitext2, c4 or "texts/*.txt".'
        )
    return SIConfig(**recipe)


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
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigurationError(f"is not JSON ({error}): give what SIConfig.save_pretrained wrote.") from error
        if not isinstance(values, dict):
            raise ConfigurationError(f"expected a JSON object, found {type(values).__name__}.")
        return SIConfig(**values)
    except (OSError, ValueError) as error:  # ConfigurationError and JSON's error are ValueErrors
        raise ConfigurationError(f"--config {file}: {error}") from error


def _share_or_auto(text: str) -> float | str:
    return text if text == "auto" else float(text)


def _pattern(text: str) -> str:
    try:
        parse_pattern(text)
    except ConfigurationError as error:
        raise ArgumentTypeError(str(error)) from error
    return text
