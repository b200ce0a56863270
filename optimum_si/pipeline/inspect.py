"""What of a model would be pruned: its stacks, layers, pairs, and what stays dense."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedModel

from optimum_si.checkpoint.skeleton import skeleton_of
from optimum_si.models.experts.unfused import experts_as_linears
from optimum_si.models.families.base import UNDECLARED
from optimum_si.models.inventory import Inventory, take_inventory
from optimum_si.models.selection import select_views
from optimum_si.models.stacks import Stack
from optimum_si.models.structure import Block, Structure, find_structure
from optimum_si.models.weight_view import WeightView
from optimum_si.report.kinds import kind_of
from optimum_si.report.table import format_table
from optimum_si.report.text import printable


@dataclass(frozen=True)
class LayersOfAKind:
    """Layers at the same place of their blocks.

    Args:
        name: inside the block; "*" stands for numbers.
        count: how many there are.
        shape: [d_out, d_in].
        weights: in all of them.
        pruned: whether the recipe prunes them.
    """

    name: str
    count: int
    shape: tuple[int, int]
    weights: int
    pruned: bool


@dataclass(frozen=True)
class StackOfBlocks:
    """One list of blocks.

    Args:
        name: what ``stacks`` takes.
        blocks: how many.
        classes: of the blocks.
        reads: input of the model that comes there, such as "pixel_values".
        declared: whether its family is.
        pairs: names of the channels whose scales are absorbed, as they are declared.
        layers: by kind.
    """

    name: str
    blocks: int
    classes: list[str]
    reads: str
    declared: bool
    pairs: list[str]
    layers: list[LayersOfAKind]


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect` found.

    Args:
        model: what was asked for.
        architecture: class of the model.
        stacks: lists of blocks.
        inventory: numbers of weights.
        left_alone: lists that are no stacks.
    """

    model: str
    architecture: str
    stacks: list[StackOfBlocks]
    inventory: Inventory
    left_alone: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def text(self) -> str:
        """Tables that a terminal shows."""
        parts = [f"{self.model}: {self.architecture}, {self.inventory.total:,} weights"]
        for stack in self.stacks:
            # Those of all experts of a block are one line.
            names = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", pair) for pair in stack.pairs)
            pairs = ", ".join(names) or "none"
            pairs += "" if stack.declared else " (its family is not declared: others are found by trial, when pruned)"
            head = f"{stack.name}: {stack.blocks} x {', '.join(stack.classes)}, reads {stack.reads}; pairs: {pairs}"
            rows = [
                [
                    kind.name,
                    str(kind.count),
                    "x".join(map(str, kind.shape)),
                    f"{kind.weights:,}",
                    "pruned" if kind.pruned else "dense",
                ]
                for kind in stack.layers
            ]
            parts.append(f"{head}\n{format_table(['layers', 'count', 'shape', 'weights', ''], rows)}")
        parts.append(
            f"pruned: {self.inventory.pruned:,} weights, {self.inventory.share:.1%} of the model\n"
            f"dense: {self.inventory.in_words()}\n"
            "What no data comes to, or is read past its layer, stays dense as well: a run tells."
        )
        if self.left_alone:
            parts.append(f"no stacks of blocks: {', '.join(self.left_alone)}")
        return printable("\n\n".join(parts))


def inspect(
    model: str,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    stacks: list[str] | None = None,
    **place: Any,
) -> Inspection:
    """What of a checkpoint a recipe would prune; its weights are not read.

    Args:
        model: Hub id or directory.
        include, exclude, stacks: as of :class:`optimum_si.SIConfig`.
        place: ``revision`` and ``subfolder``.

    Raises:
        CheckpointError: when there is no config that transformers can build.
        UnsupportedModelError: for a model without blocks.
        ConfigurationError: for globs that match nothing.
    """
    with skeleton_of(model, **place) as skeleton, experts_as_linears(skeleton):
        structure = find_structure(skeleton)
        chosen = select_views(structure, include, exclude, stacks)
        views = {view.name: view for of_block in chosen for view in of_block.values()}
        return Inspection(
            str(model),
            type(skeleton).__name__,
            [_stack(structure, stack.name, _reads(skeleton, stack), views) for stack in structure.stacks],
            take_inventory(skeleton, structure, views.values()),
            structure.left_alone,
        )


def _reads(model: PreTrainedModel, stack: Stack) -> str:
    """The input of the model that comes to a stack."""
    decodes = getattr(model.config, "is_encoder_decoder", False) and stack.tower is model.get_decoder()
    return f"decoder_{stack.reads}" if decodes and stack.reads == "input_ids" else stack.reads


def _stack(structure: Structure, name: str, reads: str, pruned: dict[str, WeightView]) -> StackOfBlocks:
    blocks = [block for block in structure.blocks if block.stack == name]
    return StackOfBlocks(
        name,
        len(blocks),
        list(dict.fromkeys(type(block.module).__name__ for block in blocks)),
        reads,
        all(block.family is not UNDECLARED for block in blocks),
        list(dict.fromkeys(group.name for block in blocks for group in block.scale_groups if group.absorbable)),
        _layers(blocks, pruned),
    )


def _layers(blocks: Sequence[Block], pruned: dict[str, WeightView]) -> list[LayersOfAKind]:
    found: Counter[tuple[str, tuple[int, int], bool]] = Counter(
        (kind_of(local), view.shape, view.name in pruned) for block in blocks for local, view in block.views.items()
    )
    return [
        LayersOfAKind(kind, count, shape, count * shape[0] * shape[1], is_pruned)
        for (kind, shape, is_pruned), count in found.items()
    ]
