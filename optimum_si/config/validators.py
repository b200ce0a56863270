"""Checks of single options: each raises a :class:`ConfigurationError` with what was given and what is accepted."""

import math
from typing import Any

from optimum_si.errors import ConfigurationError


def quoted(names: Any) -> str:
    """Names as a message lists them."""
    return ", ".join(repr(name) for name in names)


def check_choice(name: str, value: Any, accepted: tuple[Any, ...]) -> None:
    """Raise unless ``value`` is one of those accepted."""
    if value not in accepted or isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r} is unknown; accepted: {quoted(accepted)}.")


def check_boolean(name: str, value: Any) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r}: expected True or False.")


def check_integer(name: str, value: Any, minimum: int) -> None:
    """Raise unless ``value`` is a whole number of at least ``minimum``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigurationError(f"{name}={value!r}: expected a whole number of at least {minimum}.")


def check_number(
    name: str, value: Any, minimum: float | None = None, above: float | None = None, below: float | None = None
) -> None:
    """Raise unless ``value`` is a finite number within the bounds given."""
    bounds = [
        text
        for bound, text in ((minimum, f"at least {minimum}"), (above, f"above {above}"), (below, f"below {below}"))
        if bound is not None
    ]
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if (
        not number
        or (minimum is not None and value < minimum)
        or (above is not None and value <= above)
        or (below is not None and value >= below)
    ):
        raise ConfigurationError(f"{name}={value!r}: expected a number {' and '.join(bounds)}.")


def check_share(name: str, value: Any, other: str) -> None:
    """Raise unless ``value`` is a number from 0 to 1; ``other`` names what else is accepted."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ConfigurationError(f"{name}={value!r}: expected a number from 0 to 1, or {other}.")
