"""Layers by their kind: the same place in every block, and in every expert of a block."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Self

from .records import LayerReport, RunReport


#: Rows of a summary: a run of many kinds names the largest and says how many it leaves out.
MAX_KINDS = 12
#: Layers that a summary names.
MAX_WORST = 5
#: A number between dots, such as the position of an expert.
_POSITION = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True)
class KindOfLayer:
    """What became of all layers of a kind.

    Args:
        name: of the layers, without that of their block; "*" for positions in lists.
        count: number of layers.
        num_weights: entries of their weight matrices.
        sparsity: fraction of zeros measured in these; None where nothing was pruned.
        mean_error_before: mean of the layers' errors with the plain method; None in a run without induction.
        mean_error, worst_error: of the layers' errors as they are now.
    """

    name: str
    count: int
    num_weights: int
    sparsity: float | None
    mean_error_before: float | None
    mean_error: float
    worst_error: float

    @classmethod
    def of(cls, name: str, layers: Sequence[LayerReport]) -> Self:
        """The kind that these layers are."""
        num_weights = sum(layer.num_weights for layer in layers)
        zeros = [layer.sparsity * layer.num_weights for layer in layers if layer.sparsity is not None]
        before = [layer.error_before for layer in layers if layer.error_before is not None]
        errors = [layer.error_after for layer in layers]
        return cls(
            name,
            len(layers),
            num_weights,
            sum(zeros) / num_weights if zeros else None,
            mean(before) if before else None,
            mean(errors),
            max(errors),
        )


def kind_of(local: str) -> str:
    """What layers at the same place are called, from the name of one inside its block: "*" for positions in lists."""
    return _POSITION.sub("*", local)


def kinds_of_layers(run: RunReport) -> list[KindOfLayer]:
    """Every kind, in forward order."""
    found: dict[str, list[LayerReport]] = {}
    for block in run.blocks:
        for layer in block.layers:
            name = kind_of(layer.name.removeprefix(f"{block.name}."))
            found.setdefault(name, []).append(layer)
    return [KindOfLayer.of(name, layers) for name, layers in found.items()]


def largest_kinds(kinds: Sequence[KindOfLayer]) -> tuple[list[KindOfLayer], int]:
    """Those that a summary has room for, in their order, and how many others there are."""
    if len(kinds) <= MAX_KINDS:
        return list(kinds), 0
    kept = sorted(range(len(kinds)), key=lambda position: -kinds[position].num_weights)[: MAX_KINDS - 1]
    return [kinds[position] for position in sorted(kept)], len(kinds) - len(kept)


def worst_layers(run: RunReport) -> list[LayerReport]:
    """The layers with the largest errors, the worst first."""
    return sorted(run.layers, key=lambda layer: -layer.error_after)[:MAX_WORST]
