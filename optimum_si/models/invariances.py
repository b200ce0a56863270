"""Symmetries: spaces of activations whose basis can be changed while the function of the model stays the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from .weight_view import WeightView, linear_views


if TYPE_CHECKING:
    from .structure import Structure


@dataclass(frozen=True, eq=False)
class Side:
    """A linear map that writes (rows) or reads (columns) a space.

    Args:
        view: the map.
        repeats: how often in a row it holds each part of the space: query heads that share one key-value head.
    """

    view: WeightView
    repeats: int = 1


@dataclass(frozen=True, eq=False)
class Space:
    """``parts`` independent spaces of ``size`` channels, and all that writes or reads them.

    Under x' = Q^T x the rows and biases of writers become Q^T W, the columns of readers W Q, the rows of tables E Q.

    Args:
        name: for messages, such as "model.layers.0 v->o".
        parts: key-value heads; 1 where the space is not cut into heads.
        size: channels of a part.
        writers: linear maps whose output is here.
        readers: linear maps whose input is here.
        tables: embeddings, [n, size].
        norms: normalization layers whose weight and bias have ``size`` entries, in this order.
    """

    name: str
    parts: int
    size: int
    writers: tuple[Side, ...] = ()
    readers: tuple[Side, ...] = ()
    tables: tuple[nn.Parameter, ...] = ()
    norms: tuple[nn.Module, ...] = ()


@dataclass(frozen=True, eq=False)
class BlockSymmetries:
    """What a family declares of one block.

    Args:
        reads: readers of the residual stream with the norm in front of them; None where they read it as it is.
        writers: what is added to the residual stream.
        norms: norms that work on the residual stream and feed it again (post-norm).
        values: v -> o, head by head.
        queries: q and k, head by head; None where RoPE or a norm stands between them.
        hidden: the MLP's own channels.
    """

    reads: Sequence[tuple[nn.Module | None, Sequence[WeightView]]]
    writers: Sequence[WeightView]
    values: Space
    hidden: Space
    norms: Sequence[nn.Module] = ()
    queries: Space | None = None


@dataclass(frozen=True, eq=False)
class Ends:
    """What holds the residual stream outside the blocks.

    Args:
        tables: embeddings that are added to it, [n, features].
        reads: readers with the norm in front of them, as the head behind the final norm.
        writers: projections of narrower embeddings.
        norms: norms that work on it and feed it again.
    """

    tables: Sequence[nn.Parameter]
    reads: Sequence[tuple[nn.Module | None, Sequence[WeightView]]]
    writers: Sequence[WeightView] = ()
    norms: Sequence[nn.Module] = ()


@dataclass(frozen=True, eq=False)
class Residual:
    """The residual stream of a whole model.

    Args:
        space: all that writes and reads it, for changes of its basis.
        reads: norms with their readers.
        rotatable: whether every reader stands behind a norm that commutes with rotations once its weight is folded.
        centered: whether norms subtract the mean: then only rotations that leave (1, ..., 1) as it is commute.
    """

    space: Space
    reads: Sequence[tuple[nn.Module | None, Sequence[WeightView]]]
    rotatable: bool
    centered: bool


@dataclass(frozen=True, eq=False)
class Symmetries:
    """All symmetries of a model; empty for a family that declares none.

    Args:
        residual: None where the stream itself is the model's output, or has parts that the family does not know.
        values, queries, hidden: by block name.
    """

    residual: Residual | None = None
    values: Mapping[str, Space] = field(default_factory=dict)
    queries: Mapping[str, Space] = field(default_factory=dict)
    hidden: Mapping[str, Space] = field(default_factory=dict)


def find_symmetries(model: nn.Module, structure: "Structure") -> Symmetries:
    """What the family of a model declares, for this model."""
    declare = structure.family.symmetries
    if declare is None:
        return Symmetries()
    config: Any = model.config
    found = {block.name: declare(block.module, block.views, config) for block in structure.blocks}
    return Symmetries(
        residual=_residual(model, structure, list(found.values())),
        values={name: each.values for name, each in found.items()},
        queries={name: each.queries for name, each in found.items() if each.queries is not None},
        hidden={name: each.hidden for name, each in found.items()},
    )


def hidden_space(producers: Sequence[WeightView], consumer: WeightView) -> Space:
    """up (and gate) -> down, or fc1 -> fc2 through any elementwise activation."""
    writers = tuple(map(Side, producers))
    return Space(f"input of {consumer.name}", 1, consumer.shape[1], writers, (Side(consumer),))


def value_space(value: WeightView, output: WeightView, head_size: int) -> Space:
    """v -> o; query heads that share a value head share its basis."""
    heads = value.shape[0] // head_size
    repeats = output.shape[1] // value.shape[0]
    return Space(f"input of {output.name}", heads, head_size, (Side(value),), (Side(output, repeats),))


def query_space(query: WeightView, key: WeightView, head_size: int) -> Space:
    """q and k where nothing stands between them: q^T k stays when both are rotated alike."""
    heads = key.shape[0] // head_size
    repeats = query.shape[0] // key.shape[0]
    return Space(f"{query.name} and keys", heads, head_size, (Side(query, repeats), Side(key)))


def heads_of(model: nn.Module) -> list[WeightView]:
    """Linear maps outside the base model, which read what it returns."""
    base = getattr(model, "base_model", model)
    inside = {id(module) for module in base.modules()}
    return [view for view in linear_views(model, "") if id(view.module) not in inside]


def _residual(model: nn.Module, structure: "Structure", found: Sequence[BlockSymmetries]) -> Residual | None:
    declare = structure.family.ends
    ends = None if declare is None else declare(model)
    # Without a head the stream is what the model returns: its order and basis are the user's.
    if ends is None or not any(views for _, views in ends.reads):
        return None
    reads = [pair for each in found for pair in each.reads] + list(ends.reads)
    writers = [view for each in found for view in each.writers] + list(ends.writers)
    norms = [norm for each in found for norm in each.norms] + list(ends.norms)
    in_front = [norm for norm, _ in reads if norm is not None]
    readers = tuple(Side(view) for _, views in reads for view in views)
    space = Space(
        "residual stream",
        1,
        readers[0].view.shape[1],
        tuple(map(Side, writers)),
        readers,
        tuple(ends.tables),
        (*in_front, *norms),
    )
    centered = [isinstance(norm, nn.LayerNorm) for norm in in_front]
    known = all(isinstance(norm, nn.LayerNorm) or "RMSNorm" in type(norm).__name__ for norm in in_front)
    behind_norms = not norms and all(norm is not None for norm, _ in reads)
    return Residual(space, reads, behind_norms and known, any(centered))
