"""Absorption: the scale goes into the weights on both sides, and the function stays the same (Eq. 3)."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from ..errors import UnsupportedModelError
from ..models.channels import Channels
from ..models.views import WeightView


def absorb(channels: Channels, scale: Tensor) -> None:
    """Multiply consumers' columns by s and divide their producer by it, in place.

    Exact to the last bit for powers of two within the range of the weights' dtype; ``absorb(channels, 1 / scale)``
    undoes it.

    Args:
        channels: where the scale enters.
        scale: s > 0, [channels.size].

    Raises:
        UnsupportedModelError: for channels without a producer that can take 1 / s.
    """
    if not channels.absorbable:
        raise UnsupportedModelError(f"channels {channels.name!r} have no producer that can absorb a scale.")
    for slot in channels.slots:
        weight = slot.view.read()
        factor = slot.factor(scale).to(weight.device, _wide(weight))
        if slot.axis == "columns":
            slot.view.write(weight.to(factor.dtype) * factor)
        else:
            slot.view.write(weight.to(factor.dtype) * factor[:, None])
            bias = slot.view.read_bias()
            if bias is not None:
                slot.view.write_bias(bias.to(factor.dtype) * factor)
    for norm in channels.norms:
        for name in ("weight", "bias"):
            parameter: Tensor | None = getattr(norm, name, None)
            if parameter is not None:
                values = parameter.detach()
                values.copy_(values.to(_wide(values)) / scale.to(values.device, _wide(values)))


def view_factor(
    channels: list[Channels], scales: Mapping[str, Tensor], view: WeightView, axis: Literal["rows", "columns"]
) -> Tensor | None:
    """What scales multiply the rows [d_out] or columns [d_in] of one view by; None where nothing scales them.

    Args:
        channels: of the view's block.
        scales: s by the name of its channels; channels that are left out are not scaled.
    """
    factor = None
    for entry in channels:
        for slot in entry.slots:
            if slot.view is view and slot.axis == axis and entry.name in scales:
                own = slot.factor(scales[entry.name])
                factor = own if factor is None else factor * own
    return factor


def _wide(tensor: Tensor) -> torch.dtype:
    """The dtype to compute in: fp32, or fp64 where the tensor is fp64."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
