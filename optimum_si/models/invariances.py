"""Invariances: spaces of activations whose basis can be changed while the function of the model stays the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from .weight_view import WeightView, linear_views


@dataclass(frozen=True, eq=False)
class Writer:
    """A linear map whose output rows lie in a basis.

    Args:
        view: the map.
        repeats: how often its rows hold each part: query heads that share one key-value head.
    """

    view: WeightView
    repeats: int = 1

    def split(self, basis: "Basis") -> Tensor:
        """The weight as [parts, repeats, size, d_in]."""
        return self.view.read().unflatten(0, (basis.parts, self.repeats, basis.size))


@dataclass(frozen=True, eq=False)
class Reader:
    """A linear map whose input columns lie in a basis; arguments as for :class:`Writer`, of its columns."""

    view: WeightView
    repeats: int = 1

    def split(self, basis: "Basis") -> Tensor:
        """The weight as [d_out, parts, repeats, size]."""
        return self.view.read().unflatten(1, (basis.parts, self.repeats, basis.size))


@dataclass(frozen=True, eq=False)
class Basis:
    """The basis of ``parts`` independent spaces of ``size`` channels, and all that writes or reads them.

    Under x' = Q^T x the rows and biases of writers become Q^T W, the columns of readers W Q, the rows of tables E Q.

    Args:
        name: for messages, such as "model.layers.0 v->o".
        parts: key-value heads; 1 where it is not cut into heads.
        size: channels of a part.
        writers: linear maps whose output is here.
        readers: linear maps whose input is here.
        tables: embeddings, [n, size].
        norms: normalization layers whose weight and bias have ``size`` entries, in this order.
    """

    name: str
    parts: int
    size: int
    writers: tuple[Writer, ...] = ()
    readers: tuple[Reader, ...] = ()
    tables: tuple[nn.Parameter, ...] = ()
    norms: tuple[nn.Module, ...] = ()


@dataclass(frozen=True, eq=False)
class BlockInvariances:
    """What a family declares of one block.

    Args:
        reads: readers of the residual stream with the norm in front of them; None where they read it as it is.
        writers: what is added to the residual stream.
        norms: norms that work on the residual stream and feed it again (post-norm).
        value_heads: v -> o, head by head.
        mlp: the MLP's own channels.
        query_heads: q and k, head by head; None where RoPE or a norm stands between them.
    """

    reads: Sequence[tuple[nn.Module | None, Sequence[WeightView]]]
    writers: Sequence[WeightView]
    value_heads: Basis
    mlp: Basis
    norms: Sequence[nn.Module] = ()
    query_heads: Basis | None = None


@dataclass(frozen=True, eq=False)
class ModelEnds:
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
class ResidualStream:
    """The residual stream of a whole model.

    Args:
        basis: all that writes and reads it, for changes of its basis.
        reads: norms with their readers.
        rotatable: whether every reader stands behind a norm that commutes with rotations once its weight is folded.
        centered: whether norms subtract the mean: then only rotations that leave (1, ..., 1) as it is commute.
    """

    basis: Basis
    reads: Sequence[tuple[nn.Module | None, Sequence[WeightView]]]
    rotatable: bool
    centered: bool


@dataclass(frozen=True, eq=False)
class Invariances:
    """All invariances of a model; empty for a family that declares none.

    Args:
        residual: None where the stream itself is the model's output, or has parts that the family does not know.
        value_heads, query_heads, mlp: bases inside each block, by block name.
    """

    residual: ResidualStream | None = None
    value_heads: Mapping[str, Basis] = field(default_factory=dict)
    query_heads: Mapping[str, Basis] = field(default_factory=dict)
    mlp: Mapping[str, Basis] = field(default_factory=dict)


def mlp_basis(producers: Sequence[WeightView], consumer: WeightView) -> Basis:
    """up (and gate) -> down, or fc1 -> fc2 through any elementwise activation."""
    writers = tuple(map(Writer, producers))
    return Basis(f"input of {consumer.name}", 1, consumer.shape[1], writers, (Reader(consumer),))


def value_head_basis(value: WeightView, output: WeightView, head_size: int) -> Basis:
    """v -> o; query heads that share a value head share its basis."""
    heads = value.shape[0] // head_size
    repeats = output.shape[1] // value.shape[0]
    return Basis(f"input of {output.name}", heads, head_size, (Writer(value),), (Reader(output, repeats),))


def query_head_basis(query: WeightView, key: WeightView, head_size: int) -> Basis:
    """q and k where nothing stands between them: q^T k stays when both are rotated alike."""
    heads = key.shape[0] // head_size
    repeats = query.shape[0] // key.shape[0]
    return Basis(f"{query.name} and keys", heads, head_size, (Writer(query, repeats), Writer(key)))


def output_heads(model: nn.Module) -> list[WeightView]:
    """Linear maps outside the base model, which read what it returns."""
    base = getattr(model, "base_model", model)
    inside = {id(module) for module in base.modules()}
    return [view for view in linear_views(model, "") if id(view.module) not in inside]
