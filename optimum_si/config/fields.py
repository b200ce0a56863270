"""The table of options: each is declared once, as a field, with all that is known about it.

From the fields follow the constructors, their checks and docstrings, the flags of the command line (``commands``), the
command that a model card prints (``command_line``) and the tables of ``docs/reference.md`` (``docs/generate.py``).
"""

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, dataclass_transform

from optimum_si.errors import ConfigurationError

from .option_types import OptionType
from .validators import quoted, shown


T = TypeVar("T")
Given = TypeVar("Given")
Kept = TypeVar("Kept")

#: Columns of the docstrings that are made from the table.
_WIDTH = 119


if TYPE_CHECKING:

    class Converted(Generic[Given, Kept]):
        """A field whose constructor argument has another type than the value kept."""

        def __get__(self, instance: object, owner: Any) -> Kept: ...
        def __set__(self, instance: object, value: Given) -> None: ...

else:

    class Converted:
        """At run time the annotation is the type of the argument, as signatures show it."""

        def __class_getitem__(cls, types):
            return types[0]


@dataclass(frozen=True)
class Option:
    """What is known about an option.

    Args:
        default: value where none is given.
        type: what it accepts.
        name: its field's.
        help: its meaning on the command line, in a line or two.
        detail: its meaning in docstrings and in the reference, in Markdown; ``help`` where this is empty.
        has_flag: whether the command line has it.
        none: what None stands for, where the default is None and that needs saying.
        exclusive: name of a set of options of which the command line takes one.
        see: page and heading of the documentation that say more.
        prefix: of its flag, where options of several groups would share one.
    """

    default: Any
    type: OptionType
    name: str = ""
    help: str = ""
    detail: str = ""
    has_flag: bool = False
    none: str = ""
    exclusive: str = ""
    see: str = ""
    prefix: str = ""

    @property
    def meaning(self) -> str:
        """Its meaning in full, Markdown."""
        return self.detail or self.help

    @property
    def flag(self) -> str:
        """Its flag on the command line; that of a group leaves the group out."""
        return f"--{'no-' if self.type.group else ''}{self.key.replace('_', '-')}"

    @property
    def key(self) -> str:
        """What the command line calls it among the options of all groups."""
        return f"{self.prefix}_{self.name}" if self.prefix else self.name

    @property
    def default_in_words(self) -> str | None:
        """Its default as help states it; None where that says nothing."""
        if self.default is None or isinstance(self.default, bool):
            return self.none or None
        return str(self.default)


def option(*, default: Any, type: OptionType, flag: bool = False, **known: Any) -> Any:
    """Declare an option as a field of a :func:`configuration`.

    Args:
        default: value where none is given.
        type: what it accepts, from ``option_types``.
        flag: whether the command line has it too.
        known: further fields of :class:`Option`: ``help``, ``detail``, ``none``, ``exclusive``, ``see``.
    """
    return field(default=default, metadata={"option": Option(default, type, has_flag=flag, **known)})


def options(configuration: type) -> dict[str, Option]:
    """The options that a configuration declares, by name, in their order."""
    prefix = getattr(configuration, "FLAG_PREFIX", "")
    return {
        declared.name: replace(declared.metadata["option"], name=declared.name, prefix=prefix)
        for declared in fields(configuration)
        if "option" in declared.metadata
    }


def groups(configuration: type) -> dict[str, type]:
    """The configurations that are options of another, by name."""
    return {name: known.type.group for name, known in options(configuration).items() if known.type.group is not None}


def flagged(configuration: type) -> dict[str, Option]:
    """The options of a configuration that the command line has too."""
    return {name: known for name, known in options(configuration).items() if known.has_flag}


class Configuration:
    """Options that are checked together; a subclass adds the rules between them to :meth:`validate`."""

    #: Name of the option of the recipe that holds this group; messages then say "group.option".
    GROUP: ClassVar[str] = ""
    #: What the flags of this group begin with, where those of another have the same names.
    FLAG_PREFIX: ClassVar[str] = ""

    def validate(self) -> None:
        """Check and normalize every option, also after one was changed by assignment.

        Raises:
            ConfigurationError: names the option, the value given and the values accepted.
        """
        prefix = f"{self.GROUP}." if self.GROUP else ""
        for name, known in options(type(self)).items():
            setattr(self, name, known.type.check(prefix + name, getattr(self, name)))


def group(kind: type[Configuration], required: bool = False) -> OptionType:
    """A configuration, a dict of its options, or a boolean: True is its defaults, False is None.

    Args:
        kind: class of the configuration.
        required: take None as the defaults, and refuse False.
    """
    expected = f"expected {'a ' if required else ''}{kind.__name__}"

    def check(name: str, value: Any) -> Any:
        if value is False and required:
            raise ConfigurationError(f"{name}={shown(value)}: {expected} or a dict of its fields.")
        if value is None or isinstance(value, bool):
            return kind() if value or required else None
        if isinstance(value, kind):
            value.validate()
            return value
        if isinstance(value, Mapping):
            refuse_unknown(kind, value)
            return kind(**value)
        raise ConfigurationError(f"{name}={shown(value)}: expected {kind.__name__}, a dict of its fields, or None.")

    return OptionType(check, {"action": "store_const", "const": False}, kind)


def refuse_unknown(kind: type[Configuration], names: Iterable[Any]) -> None:
    """Raise a :class:`ConfigurationError` unless a configuration has options of all these names."""
    accepted = options(kind)
    if unknown := [name for name in names if name not in accepted]:
        raise ConfigurationError(
            f"{kind.GROUP or kind.__name__} has no {quoted(unknown)}; it takes {quoted(accepted)}."
        )


@dataclass_transform(field_specifiers=(option,))
def configuration(cls: type[T]) -> type[T]:
    """Make a dataclass of the declared options, whose constructor refuses unknown names and wrong values."""
    made: Any = dataclass(cls)
    assign: Callable[..., None] = made.__init__

    @wraps(assign)
    def __init__(self: Any, *args: Any, **values: Any) -> None:
        refuse_unknown(type(self), values)
        assign(self, *args, **values)
        self.validate()

    made.__init__ = __init__
    return documented(made)


def documented(cls: type[T]) -> type[T]:
    """State the options of a configuration in its docstring, before the errors that it raises."""
    entries = [
        textwrap.fill(
            f"{name}: {known.meaning.replace('`', '``')}",
            width=_WIDTH,
            initial_indent=" " * 4,
            subsequent_indent=" " * 8,
            break_on_hyphens=False,
            break_long_words=False,
        )
        for name, known in options(cls).items()
    ]
    summary, raises, errors = inspect.cleandoc(cls.__doc__ or "").partition("Raises:\n")
    cls.__doc__ = "\n".join([f"{summary}Args:", *entries, "", f"{raises}{errors}"])
    return cls
