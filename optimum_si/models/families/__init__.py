"""Model families: each file here that has a ``FAMILY`` declares one; pairs of others are found by trial."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from .base import Family


def find_family(model_type: str) -> Family | None:
    """The declared family of a model type, or None."""
    return next((family for family in declared_families() if model_type in family.model_types), None)


def declared_families() -> Iterator[Family]:
    """Every family that a file here declares."""
    for module in iter_modules(__path__):
        family: Family | None = getattr(import_module(f".{module.name}", __name__), "FAMILY", None)
        if family is not None:
            yield family
