"""Checks of single values: each raises a :class:`ConfigurationError` with what was given and what is accepted."""

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from optimum_si.errors import ConfigurationError


def quoted(names: Any) -> str:
    """Names as a message lists them."""
    return ", ".join(repr(name) for name in names)


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether a module's name matches one of the globs of ``include`` or ``exclude``; the case of letters counts."""
    return any(fnmatchcase(name, glob) for glob in globs)


def check_choice(name: str, value: Any, accepted: tuple[Any, ...]) -> None:
    """Raise unless ``value`` is one of those accepted."""
    if not isinstance(value, (str, int)) or isinstance(value, bool) or value not in accepted:
        raise ConfigurationError(f"{name}={shown(value)} is unknown; accepted: {quoted(accepted)}.")


def check_boolean(name: str, value: Any) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}={shown(value)}: expected True or False.")


def check_integer(name: str, value: Any, minimum: int, maximum: int | None = None) -> None:
    """Raise unless ``value`` is a whole number from ``minimum`` to ``maximum``."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if not number or value < minimum or (maximum is not None and value > maximum):
        accepted = f"of at least {minimum}" + ("" if maximum is None else f" and at most {maximum}")
        raise ConfigurationError(f"{name}={shown(value)}: expected a whole number {accepted}.")


def check_number(
    name: str,
    value: Any,
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
) -> None:
    """Raise unless ``value`` is a finite number within the bounds given."""
    bounds = [
        text
        for bound, text in (
            (minimum, f"at least {minimum}"),
            (above, f"above {above}"),
            (below, f"below {below}"),
            (maximum, f"at most {maximum}"),
        )
        if bound is not None
    ]
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf
    if (
        not number
        or (minimum is not None and value < minimum)
        or (above is not None and value <= above)
        or (below is not None and value >= below)
        or (maximum is not None and value > maximum)
    ):
        raise ConfigurationError(f"{name}={shown(value)}: expected a number {' and '.join(bounds)}.")


def check_share_or(name: str, value: Any, word: str) -> None:
    """Raise unless ``value`` is a number from 0 to 1, or one word."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value != word and not (number and 0 <= value <= 1):
        raise ConfigurationError(f"{name}={shown(value)}: expected a number from 0 to 1, or {word!r}.")


def check_text(name: str, value: Any) -> None:
    """Raise unless ``value`` is a string or None."""
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{name}={shown(value)}: expected a string or None.")


def check_names(name: str, value: Any, accepted: tuple[str, ...]) -> list[str] | None:
    """Some of the accepted names, in their order; None for none of them, which may be written "none"."""
    if value is not None and not isinstance(value, (str, list, tuple)):
        raise ConfigurationError(f"{name}={shown(value)}: expected some of {quoted(accepted)} in a list, or None.")
    values = [value] if isinstance(value, str) else list(value or [])
    if values == ["none"]:
        return None
    for entry in values:
        check_choice(name, entry, accepted)
    return [entry for entry in accepted if entry in values] or None


def check_globs(name: str, value: Any) -> list[str] | None:
    """Globs over module names as a list; one of them needs no list, and None stays None."""
    if value is None:
        return None
    values = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple)) else []
    if not values or not all(isinstance(glob, str) and glob for glob in values):
        raise ConfigurationError(
            f"{name}={shown(value)}: expected one or more globs over module names, such as '*.mlp.*', or None."
        )
    return values


def shown(value: Any) -> str:
    """A value as a message shows it: an integer of thousands of digits has no decimal form at all."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
