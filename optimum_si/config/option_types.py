"""Types that an option can have: how a value is checked and normalized, and how the command line reads it."""

from argparse import ArgumentTypeError, BooleanOptionalAction
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optimum_si.errors import ConfigurationError

from .choices import parse_pattern
from .validators import (
    check_boolean,
    check_choice,
    check_globs,
    check_integer,
    check_names,
    check_number,
    check_share_or,
    check_text,
)


#: Bounds beyond which nobody means what is written.
MOST_EPOCHS, MOST_WINDOWS, MOST_TOKENS, MOST_SEED = 10_000, 10_000_000, 2**24, 2**64 - 1


@dataclass(frozen=True)
class OptionType:
    """What an option accepts.

    Args:
        check: function of the option's name and a value that returns the value to keep, or raises a
            :class:`ConfigurationError` that names both.
        argument: settings of ``ArgumentParser.add_argument`` for the option's flag.
        group: class whose options are the value's own; None for a plain value.
    """

    check: Callable[[str, Any], Any]
    argument: Mapping[str, Any] = field(default_factory=dict)
    group: type | None = None

    def says(self, value: Any) -> bool:
        """Whether the command line can say a value: None has a word only where "none" is a choice."""
        if value is None:
            return "none" in self.argument.get("choices", ())
        words = value if isinstance(value, list) else [value]
        return not any(isinstance(word, str) and (word == "" or word.startswith("-")) for word in words)


def choice(accepted: tuple[Any, ...]) -> OptionType:
    """One of the accepted values."""
    return OptionType(_unchanged(check_choice, accepted), {"choices": accepted})


def boolean() -> OptionType:
    """True or False; ``--name`` and ``--no-name`` on the command line."""
    return OptionType(_unchanged(check_boolean), {"action": BooleanOptionalAction})


def read_integer(text: str) -> int:
    """A whole number as a command line has it: of ASCII digits alone, where ``int`` takes those of any script."""
    return int(_ascii(text))


def read_number(text: str) -> float:
    """A number as it is written on a command line."""
    return float(_ascii(text))


# argparse names the type of a value that it cannot read.
read_integer.__name__, read_number.__name__ = "whole number", "number"


def integer(minimum: int, maximum: int | None = None) -> OptionType:
    """A whole number from ``minimum`` to ``maximum``."""
    return OptionType(_unchanged(check_integer, minimum, maximum), {"type": read_integer, "metavar": "N"})


def number(
    minimum: float | None = None, above: float | None = None, below: float | None = None, maximum: float | None = None
) -> OptionType:
    """A finite number within the bounds given."""
    check = _unchanged(check_number, minimum, above, below, maximum)
    return OptionType(check, {"type": read_number, "metavar": "F"})


def share_or(word: str) -> OptionType:
    """A number from 0 to 1, or one word."""

    def read(text: str) -> float | str:
        return text if text == word else read_number(text)

    read.__name__ = f"number or {word!r}"  # argparse names the type of a value that it cannot read
    return OptionType(_unchanged(check_share_or, word), {"type": read, "metavar": "F"})


def text(metavar: str) -> OptionType:
    """A string or None; ``metavar`` stands for it in the command line's help."""
    return OptionType(_unchanged(check_text), {"metavar": metavar})


def n_of_m() -> OptionType:
    """A pattern "N:M"."""

    def read(text: str) -> str:
        try:
            parse_pattern(text)
        except ConfigurationError as error:
            raise ArgumentTypeError(str(error)) from error
        return text

    return OptionType(_unchanged(lambda _, value: parse_pattern(value)), {"type": read, "metavar": "N:M"})


def globs() -> OptionType:
    """One or more globs over module names, or None."""
    return OptionType(check_globs, {"nargs": "+", "metavar": "GLOB"})


def names(accepted: tuple[str, ...]) -> OptionType:
    """Some of the accepted names, or None, which may be written "none"."""
    return OptionType(
        lambda name, value: check_names(name, value, accepted), {"nargs": "+", "choices": (*accepted, "none")}
    )


def optional(kind: OptionType) -> OptionType:
    """What another type accepts, or None."""
    return OptionType(lambda name, value: None if value is None else kind.check(name, value), kind.argument)


def _ascii(text: str) -> str:
    if not text.isascii() or "_" in text or len(text) > 100:
        raise ValueError(text)
    return text


def _unchanged(check: Callable[..., Any], *bounds: Any) -> Callable[[str, Any], Any]:
    """A check that returns the value as it was given."""

    def checked(name: str, value: Any) -> Any:
        check(name, value, *bounds)
        return value

    return checked
