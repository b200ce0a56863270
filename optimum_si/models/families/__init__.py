"""Model families: each file here declares one, which channels can be scaled; others are pruned without pairs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from torch import nn

from optimum_si.models.invariances import BlockSymmetries, Ends
from optimum_si.models.scale_groups import Channels
from optimum_si.models.weight_view import WeightView


#: s passes through an activation of this degree as s ** (1 / degree); other activations let no scale through.
HOMOGENEOUS_DEGREE = {"relu": 1, "leaky_relu": 1, "relu2": 2}


@dataclass(frozen=True)
class Family:
    """What is particular to a family.

    Args:
        model_types: of the configs that it is for.
        channels: (block, views by name inside the block, model config) -> the channels that can be scaled. Inputs that
            it leaves out get a scale that weighs the score only.
        no_shift: names inside the block whose bias does nothing (a key's bias where there is no RoPE).
        new_biases: config field -> names inside the block that get a bias when the field is True, for architectures
            that can declare biases they were trained without.
        symmetries: (block, views by name inside the block, model config) -> the rotations and orders that a block lets
            through; None where it was not looked into.
        ends: model -> what reads and writes the residual stream outside the blocks; None keeps its basis and order.
    """

    model_types: tuple[str, ...]
    channels: Callable[[nn.Module, Mapping[str, WeightView], Any], list[Channels]]
    no_shift: tuple[str, ...] = ()
    new_biases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    symmetries: Callable[[nn.Module, Mapping[str, WeightView], Any], BlockSymmetries] | None = None
    ends: Callable[[Any], Ends | None] | None = None


UNDECLARED = Family(model_types=(), channels=lambda block, views, config: [])


def find_family(model_type: str) -> Family | None:
    """The declared family of a model type, or None."""
    for module in iter_modules(__path__):
        family: Family = import_module(f".{module.name}", __name__).FAMILY
        if model_type in family.model_types:
            return family
    return None
