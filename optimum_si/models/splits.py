"""Fused layers: which output rows of one module are queries, keys and values, or the two halves of a gated MLP."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .weight_view import WeightView


@dataclass(frozen=True)
class Part:
    """Some output rows of a fused layer.

    Args:
        unfold: sizes into which the output rows are split first; None leaves them as they are.
        index: picks the part out of these.
    """

    unfold: tuple[int, ...] | None
    index: tuple[Any, ...]


#: The parts of one layer, by name.
Split = Mapping[str, Part]


def by_size(**sizes: int) -> Split:
    """Parts one below the other, each of that many rows."""
    found, start = {}, 0
    for name, size in sizes.items():
        found[name] = Part(None, (slice(start, start + size),))
        start += size
    return found


def per_head(count: int, **sizes: int) -> Split:
    """Parts one below the other again and again: for each of ``count`` heads or groups, that many rows of each."""
    if count == 1:  # unfolded, what is read would be the very memory that is written, under other strides
        return by_size(**sizes)
    total = sum(sizes.values())
    return {name: Part((count, total), (slice(None), *part.index)) for name, part in by_size(**sizes).items()}


def alternating(*names: str) -> Split:
    """The rows of two or more parts in turn."""
    return {name: Part(None, (slice(start, None, len(names)),)) for start, name in enumerate(names)}


def halves(first: str, second: str, rows: int) -> Split:
    """Two parts of the same size, one below the other."""
    return by_size(**{first: rows // 2, second: rows // 2})


def split_views(views: Mapping[str, WeightView], splits: Mapping[str, Split]) -> dict[str, WeightView]:
    """Views by name inside their block, those of fused layers replaced by one for each part.

    Args:
        views: of whole layers.
        splits: parts by the name of a layer inside the block; layers that are not among the views are left out.
    """
    found = {}
    for local, view in views.items():
        if local not in splits:
            found[local] = view
            continue
        for name, part in splits[local].items():
            found[f"{local}.{name}"] = replace(
                view, name=f"{view.name}.{name}", part=name, unfold=part.unfold, index=part.index
            )
    return found
