"""What a model family declares: which channels can be scaled, rotated or permuted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from optimum_si.models.invariances import BlockInvariances, ModelEnds
from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split
from optimum_si.models.weight_view import WeightView


def _no_splits(block: nn.Module, config: Any) -> Mapping[str, Split]:
    return {}


@dataclass(frozen=True)
class Family:
    """What is particular to a family.

    Args:
        model_types: of the configs that it is for.
        scale_groups: (block, views by name inside the block, model config) -> the channels that can be scaled. Inputs
            that it leaves out get one that weighs the score only.
        no_shift: names inside the block whose bias does nothing (a key's bias where there is no RoPE).
        new_biases: config field -> names inside the block that get a bias when the field is True, for architectures
            that can declare biases they were trained without.
        invariances: (block, views by name inside the block, model config) -> the rotations and orders that a block
            lets through; None where it was not looked into.
        splits: (block, model config) -> parts of fused layers, by the name of the layer inside the block. Each is a
            view of its own, named such as "attn.c_attn.q".
        ends: model -> what reads and writes the residual stream outside the blocks; None keeps its basis and order.
    """

    model_types: tuple[str, ...]
    scale_groups: Callable[[nn.Module, Mapping[str, WeightView], Any], list[ScaleGroup]]
    no_shift: tuple[str, ...] = ()
    new_biases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    invariances: Callable[[nn.Module, Mapping[str, WeightView], Any], BlockInvariances] | None = None
    ends: Callable[[Any], ModelEnds | None] | None = None
    splits: Callable[[Any, Any], Mapping[str, Split]] = _no_splits


UNDECLARED = Family(model_types=(), scale_groups=lambda block, views, config: [])
