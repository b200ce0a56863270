"""What of a model is pruned and what stays dense, in numbers of weights, and why."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from .routers import is_router
from .structure import Structure
from .weight_view import WeightView


EMBEDDINGS, HEADS, ROUTERS, OUTSIDE = "embeddings", "output heads", "routers", "outside the blocks"
LEFT_OUT, CONVOLUTIONS, OTHERS, VECTORS = (
    "left out by the recipe",
    "convolutions",
    "of no known kind",
    "norms and biases",
)
ADAPTERS, UNREACHED = "adapters", "not reached by the data"


@dataclass(frozen=True)
class Inventory:
    """Numbers of weights, parameters that stand in several places once.

    Args:
        total: of the whole model.
        pruned: in layers that are pruned.
        dense: in all others, by why they stay dense, the most first.
    """

    total: int
    pruned: int
    dense: Mapping[str, int]

    @property
    def share(self) -> float:
        """Of all weights, those in layers that are pruned."""
        return self.pruned / self.total if self.total else 0.0

    def in_words(self, least: float = 0.0005) -> str:
        """What stays dense, as "embeddings 21.0%, norms and biases 0.1%"; parts below ``least`` are left out."""
        found = [f"{why} {count / self.total:.1%}" for why, count in self.dense.items() if count >= least * self.total]
        return ", ".join(found) or "nothing"


def take_inventory(
    model: nn.Module, structure: Structure, views: Iterable[WeightView], unreached: Iterable[str] = ()
) -> Inventory:
    """Count every weight of a model once.

    Args:
        model: with its experts as linear layers.
        structure: of the model.
        views: weights that are pruned.
        unreached: names of layers that were to be pruned and no data came to.
    """
    pruned: Counter[int] = Counter()
    for view in views:
        rows, columns = view.shape
        pruned[id(view.tensor())] += rows * columns
    reasons = _reasons(model, structure, set(unreached))
    dense: Counter[str] = Counter()
    total, known = 0, set()
    for name, parameter in model.named_parameters():
        if id(parameter) in known:
            continue
        known.add(id(parameter))
        total += parameter.numel()
        if left := parameter.numel() - pruned[id(parameter)]:
            dense[VECTORS if parameter.ndim < 2 else reasons.get(id(parameter), _outside(name))] += left
    return Inventory(total, sum(pruned.values()), dict(dense.most_common()))


def _reasons(model: nn.Module, structure: Structure, unreached: set[str]) -> dict[int, str]:
    """Why each matrix stays dense that is not pruned, by the id of its parameter."""
    found: dict[int, str] = {}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            found[id(module.weight)] = EMBEDDINGS
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None and hasattr(head, "weight"):
        found.setdefault(id(head.weight), HEADS)
    for stack in structure.stacks:
        config = getattr(stack.tower, "config", None)
        for module in stack.modules.values():
            for part in module.modules():
                if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                    found.setdefault(id(part.weight), CONVOLUTIONS)
            for local, parameter in module.named_parameters():
                found.setdefault(id(parameter), _in_block(local, parameter, config))
    for block in structure.blocks:
        for view in block.views.values():
            found[id(view.tensor())] = UNREACHED if view.name in unreached else LEFT_OUT
    return found


def _in_block(local: str, parameter: nn.Parameter, config: Any) -> str:
    if "adapter" in local:
        return ADAPTERS
    if is_router(local.removesuffix(".weight"), parameter.shape[0], config):
        return ROUTERS
    return CONVOLUTIONS if "conv" in local else OTHERS


def _outside(name: str) -> str:
    if re.search("embed", name):
        return EMBEDDINGS
    return HEADS if re.search(r"head|classifier|pooler|predictions", name) else OUTSIDE
