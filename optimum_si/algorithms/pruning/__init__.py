"""Pruning: targets (which weights of a score are kept), the interface of a method, and the methods, one file each."""

from importlib import import_module
from typing import TYPE_CHECKING

from optimum_si.config.choices import METHODS
from optimum_si.errors import ConfigurationError


if TYPE_CHECKING:
    from .method import PruningMethod


def get_method(name: str) -> "type[PruningMethod]":
    """The class of a method, by the name that users write.

    Raises:
        ConfigurationError: when the name is unknown; lists the accepted ones.
    """
    if name not in METHODS:
        raise ConfigurationError(f"method={name!r} is unknown; accepted: {', '.join(map(repr, METHODS))}.")
    return import_module(f".methods.{name}", __name__).METHOD
