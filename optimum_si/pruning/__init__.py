"""Pruning methods: scores, patterns, masks, solvers. Every file in ``methods`` is one, by its name.

Importing this package needs no torch, so that the command line can list methods and check patterns at once.
"""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from ..errors import ConfigurationError


if TYPE_CHECKING:
    from .base import PruningMethod

METHODS = tuple(sorted(module.name for module in iter_modules([str(Path(__file__).parent / "methods")])))
COMPARISON_GROUPS = ("row", "layer")
#: How kept weights are fitted afterwards: not at all, on the method's mask, or on the better of that and ADMM's mask.
RECONSTRUCTIONS = ("none", "exact", "admm")
#: How zeros are shared out over layers.
ALLOCATIONS = ("uniform", "owl", "error")
#: Grids that kept weights can be rounded to, those of the exports of the same name.
QUANTISATIONS = ("none", "int8", "int4")


def get_method(name: str) -> "type[PruningMethod]":
    """The class of a method, by the name that users write.

    Raises:
        ConfigurationError: when the name is unknown; lists the accepted ones.
    """
    if name not in METHODS:
        raise ConfigurationError(f"method={name!r} is unknown; accepted: {', '.join(map(repr, METHODS))}.")
    return import_module(f".methods.{name}", __name__).METHOD


def parse_pattern(pattern: str) -> tuple[int, int]:
    """ "2:4" -> (2, 4): at most N = 2 non-zeros in every M = 4 consecutive input weights.

    Raises:
        ConfigurationError: when the text is not "N:M" with 1 <= N < M.
    """
    match = re.fullmatch(r"(\d+):(\d+)", pattern) if isinstance(pattern, str) else None
    if match is None or not 1 <= int(match[1]) < int(match[2]):
        raise ConfigurationError(
            f"pattern={pattern!r} is not understood; accepted: 'N:M' with 1 <= N < M (at most N non-zeros in every M "
            "consecutive input weights), such as '2:4' or '4:8'."
        )
    return int(match[1]), int(match[2])
