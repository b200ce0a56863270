"""ScaleGroup: where one learned scale enters the weights around it, so that the function stays the same (Eq. 3)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .norms import weight_offset
from .weight_view import WeightView


#: Begins the name of groups that no pair declares; names of their readers follow.
INPUT_OF = "input of "


@dataclass(frozen=True, eq=False)
class ScaledAxis:
    """One place that a scale enters: ``view[axis] *= s[index] ** power``.

    Args:
        view: a linear map.
        axis: "columns" (inputs of the map) or "rows" (outputs; the bias follows).
        power: 1, -1, or a root where an activation between is homogeneous of a higher degree.
        index: for each row or column, which entry of s it takes; None means its own.
    """

    view: WeightView
    axis: Literal["rows", "columns"]
    power: float = 1.0
    index: Tensor | None = None

    def factor(self, scale: Tensor) -> Tensor:
        """The factor of each row or column, from s."""
        picked = scale if self.index is None else scale[self.index.to(scale.device)]
        return picked if self.power == 1 else picked**self.power


@dataclass(frozen=True, eq=False)
class ScaleGroup:
    """Channels that share one learned scale s, and every place that it enters.

    Args:
        name: short name within the block, such as "up->down"; part of the key under which s is saved.
        size: entries of s.
        axes: linear maps that s enters.
        norms: normalization layers whose output is divided by s (weight, and bias if there is one).
        absorbable: False where no producer can take 1 / s: then s weighs the score only.
        offset: what norms add to their weight before they multiply by it: 1 for Gemma's, whose weight is 1 + w.
        base: s is rounded to powers of this when it is absorbed; 4 where its square root is absorbed too.
        rows_only: True for q <-> k, which scales output rows on both sides and so moves only masks whose threshold is
            shared by rows.
    """

    name: str
    size: int
    axes: tuple[ScaledAxis, ...]
    norms: tuple[nn.Module, ...] = ()
    absorbable: bool = True
    rows_only: bool = False
    base: int = 2
    offset: float = 0.0

    def consumers(self) -> list[ScaledAxis]:
        """The axes whose input channels s scales."""
        return [scaled for scaled in self.axes if scaled.axis == "columns"]


def score_only(name: str, views: list[WeightView]) -> ScaleGroup:
    """The group of an input that no producer can scale: s weighs the score and is not absorbed."""
    return ScaleGroup(name, views[0].shape[1], tuple(ScaledAxis(view, "columns") for view in views), absorbable=False)


def norm_to_linears(name: str, norm: nn.Module, views: list[WeightView]) -> ScaleGroup:
    """A norm whose output feeds only ``views``: gamma (and beta) / s, columns * s."""
    axes, offset = tuple(ScaledAxis(view, "columns") for view in views), weight_offset(norm)
    # A norm whose weight is no factor takes no scale.
    absorbable = offset is not None
    return ScaleGroup(name, views[0].shape[1], axes, norms=(norm,), absorbable=absorbable, offset=offset or 0.0)


def linear_to_linear(name: str, producer: WeightView, consumer: WeightView, degree: int = 1) -> ScaleGroup:
    """up -> down of a gated MLP, or fc1 -> fc2 around a ReLU: rows / s ** (1 / degree), columns * s.

    Args:
        degree: of the positively homogeneous activation between them (ReLU 1, squared ReLU 2).
    """
    axes = (ScaledAxis(producer, "rows", -1.0 / degree), ScaledAxis(consumer, "columns"))
    return ScaleGroup(name, consumer.shape[1], axes, base=2**degree)


def value_to_output(name: str, value: WeightView, output: WeightView, head_size: int) -> ScaleGroup:
    """v -> o of attention; under grouped queries the heads that read one value head share its s."""
    size, columns = value.shape[0], output.shape[1]
    repeats = columns // size
    index = None
    if repeats > 1:
        value_heads = torch.arange(size).view(-1, head_size)
        index = value_heads.repeat_interleave(repeats, dim=0).reshape(-1)
    return ScaleGroup(name, size, (ScaledAxis(value, "rows", -1.0), ScaledAxis(output, "columns", index=index)))


def query_with_key(
    name: str, query: WeightView, key: WeightView, head_size: int, rotary_size: int | None, interleaved: bool = False
) -> ScaleGroup:
    """q <-> k of attention: rows of q * s, rows of k / s.

    Args:
        head_size: channels of a head.
        rotary_size: rotated channels of a head; None without RoPE. Both channels of a rotated pair share one s.
        interleaved: pairs are (2i, 2i + 1) instead of (i, i + rotary_size / 2).
    """
    channel = torch.arange(head_size)
    if rotary_size:
        half = rotary_size // 2
        pair = channel // 2 if interleaved else channel % half
        # Numbers need not be dense: channels past the rotary part keep their own, which are >= rotary_size.
        channel = torch.where(channel < rotary_size, pair, channel)
    entries, within_head = channel.unique(return_inverse=True)
    key_heads, query_heads = key.shape[0] // head_size, query.shape[0] // head_size
    of_key = torch.arange(key_heads)[:, None] * len(entries) + within_head
    of_query = of_key.repeat_interleave(query_heads // key_heads, dim=0)
    axes = (ScaledAxis(query, "rows", 1.0, of_query.reshape(-1)), ScaledAxis(key, "rows", -1.0, of_key.reshape(-1)))
    return ScaleGroup(name, key_heads * len(entries), axes, rows_only=True)


def is_shared(group: ScaleGroup, shared: Collection[int]) -> bool:
    """Whether a scale would enter a parameter that something else holds too.

    Args:
        group: where the scale enters.
        shared: ids of parameters that several modules hold.
    """
    tensors: list[Tensor | None] = [scaled.view.tensor() for scaled in group.axes]
    tensors += [getattr(norm, name, None) for norm in group.norms for name in ("weight", "bias")]
    return any(id(tensor) in shared for tensor in tensors if tensor is not None)


def with_score_only_groups(
    block: str, declared: Sequence[ScaleGroup], inputs: Sequence[Sequence[WeightView]], own: bool
) -> list[ScaleGroup]:
    """The declared groups of a block, and beside them scales that weigh the score only.

    Args:
        block: name of the block.
        declared: groups that its family declares.
        inputs: for each activation of the block, the views that read it.
        own: give each layer that shares a scale with others, or has none, one of its own. Otherwise only inputs that
            no declared group covers get one, shared by their readers.
    """
    consumers = [(group, scaled) for group in declared for scaled in group.consumers()]
    if own:
        alone = {
            id(scaled.view) for group, scaled in consumers if len(group.consumers()) == 1 and scaled.index is None
        }
        groups = [[view] for readers in inputs for view in readers if id(view) not in alone]
    else:
        covered = {id(scaled.view) for _, scaled in consumers}
        groups = [[view for view in readers if id(view) not in covered] for readers in inputs]
    inside = len(block) + 1
    extra = [score_only(INPUT_OF + ",".join(view.name[inside:] for view in views), views) for views in groups if views]
    return [*declared, *extra]
