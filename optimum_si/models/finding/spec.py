"""Pairs as text, such as "up_proj->down_proj" or "q_proj<->k_proj, heads of 64 rotated": made again in any block."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from optimum_si.models.experts.expert import Experts
from optimum_si.models.scale_groups import (
    ScaleGroup,
    linear_to_linear,
    norm_to_linears,
    query_with_key,
    value_to_output,
)
from optimum_si.models.weight_view import WeightView


#: Stands for all that reads the input of experts: the first layers of each.
ALL_OF = ".*"

_PATTERN = re.compile(
    r"(?P<first>[^<>\-, ]+)(?P<arrow><->|->)(?P<second>[^<>\- ]+)"
    r"(, heads of (?P<head>\d+))?(, rotated (?P<rotary>\d+)(?P<interleaved> by neighbors)?)?(, degree (?P<degree>\d))?"
)


@dataclass(frozen=True)
class Spec:
    """A pair, by names of modules and weights inside a block.

    Args:
        first: a norm, or a linear layer.
        second: layers that read the norm, or the other layer.
        both_rows: for q <-> k.
        head_size: channels of a head; 0 where each channel has a scale of its own.
        rotary_size, interleaved: of RoPE, as for :func:`query_with_key`; 0 without it.
        degree: of the activation between two layers.
    """

    first: str
    second: tuple[str, ...]
    both_rows: bool = False
    head_size: int = 0
    rotary_size: int = 0
    interleaved: bool = False
    degree: int = 1

    def __str__(self) -> str:
        head = f", heads of {self.head_size}" if self.head_size else ""
        rotated = f", rotated {self.rotary_size}" if self.rotary_size else ""
        neighbors = " by neighbors" if self.interleaved else ""
        degree = f", degree {self.degree}" if self.degree > 1 else ""
        arrow = "<->" if self.both_rows else "->"
        return f"{self.first}{arrow}{','.join(self.second)}{head}{rotated}{neighbors}{degree}"

    @classmethod
    def parsed(cls, text: str) -> "Spec | None":
        """The pair of that text, or None for any other."""
        found = _PATTERN.fullmatch(text)
        if found is None:
            return None
        return cls(
            found["first"],
            tuple(found["second"].split(",")),
            found["arrow"] == "<->",
            int(found["head"] or 0),
            int(found["rotary"] or 0),
            bool(found["interleaved"]),
            int(found["degree"] or 1),
        )

    def group(self, block: nn.Module, views: Mapping[str, WeightView]) -> ScaleGroup | None:
        """The scale group in a block; None where that lacks a part of it.

        Args:
            block: the block.
            views: its weights, by name inside it.
        """
        second = [view for name in self.second for view in readers(block, views, name)]
        if not second or None in second:
            return None
        readable = [view for view in second if view is not None]
        producer = reader(block, views, self.first)
        if producer is None:
            norm = dict(block.named_modules()).get(self.first)
            return None if norm is None else norm_to_linears(str(self), norm, readable)
        consumer = readable[0]
        if self.both_rows:
            return query_with_key(
                str(self), producer, consumer, self.head_size or 1, self.rotary_size or None, self.interleaved
            )
        if self.head_size:
            return value_to_output(str(self), producer, consumer, self.head_size)
        return linear_to_linear(str(self), producer, consumer, self.degree)


def reader(block: nn.Module, views: Mapping[str, WeightView], name: str) -> WeightView | None:
    """A weight by its name inside the block: one that is pruned, or a router's."""
    if name in views:
        return views[name]
    module = dict(block.named_modules()).get(name)
    weight = None if module is None else module._parameters.get("weight")
    if module is None or weight is None or weight.ndim != 2 or isinstance(module, nn.Embedding):
        return None
    fused = any(view.module is module for view in views.values())
    return None if fused else WeightView(name, module)


def readers(block: nn.Module, views: Mapping[str, WeightView], name: str) -> list[WeightView | None]:
    """The weights that a name of a reader stands for."""
    if not name.endswith(ALL_OF):
        return [reader(block, views, name)]
    around = name.removesuffix(ALL_OF)
    experts = [module for module in block.modules() if isinstance(module, Experts)]
    last = {layer for module in experts for layer in module.last_layers()}
    return [view for local, view in views.items() if local.startswith(f"{around}.") and view.module not in last]
