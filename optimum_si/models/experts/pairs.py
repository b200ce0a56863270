"""What the layout of experts says about their weights: which halves are fused, and which scales go through."""

from collections.abc import Iterator, Mapping

from torch import nn

from optimum_si.models.scale_groups import ScaleGroup, linear_to_linear
from optimum_si.models.splits import Split
from optimum_si.models.weight_view import WeightView

from .expert import Expert


def expert_splits(block: nn.Module) -> dict[str, Split]:
    """Parts of the fused layers of all experts in a block, by the name of the layer inside the block."""
    return {f"{name}.{layer}": split for name, expert in _experts(block) for layer, split in expert.splits.items()}


def expert_groups(block: nn.Module, views: Mapping[str, WeightView]) -> list[ScaleGroup]:
    """up -> down of each expert, where its activation is linear in one of its layers."""
    found = []
    for name, expert in _experts(block):
        if expert.scaled is None:
            continue
        producer, degree = expert.scaled
        first, last = views.get(f"{name}.{producer}"), views.get(f"{name}.{expert.last}")
        if first is not None and last is not None:
            found.append(linear_to_linear(f"{name}.{producer.rsplit('.')[-1]}->{expert.last}", first, last, degree))
    return found


def _experts(block: nn.Module) -> Iterator[tuple[str, Expert]]:
    return ((name, module) for name, module in block.named_modules() if isinstance(module, Expert))
