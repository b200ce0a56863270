"""Absorption: the scale goes into the weights on both sides, and the function stays the same (Eq. 3)."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor

from optimum_si.errors import UnsupportedModelError
from optimum_si.models.scale_groups import Channels
from optimum_si.models.weight_view import WeightView

from .scales import power_of_two


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


def absorbed_scales(channels: Iterable[Channels], scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The powers of two that absorption folds into a block, by the name of their channels.

    Args:
        channels: of the block.
        scales: learned s, by the name of its channels.
    """
    return {
        entry.name: power_of_two(scales[entry.name], entry.base)
        for entry in channels
        if entry.absorbable and entry.name in scales
    }


def exact_scale(channels: Channels, scale: Tensor, stored: Mapping[int, torch.dtype]) -> Tensor:
    """``scale`` with 1 wherever absorbing it would lose a bit in the dtype that a parameter is stored in.

    fp16 has few exponents: halving a weight below 1e-4 makes it subnormal.

    Args:
        channels: where the scale enters.
        scale: powers of two, [channels.size].
        stored: dtype of each parameter by its id.
    """
    exact = torch.ones(channels.size, dtype=torch.bool)

    def check(values: Tensor, factor: Tensor, dtype: torch.dtype, index: Tensor | None) -> None:
        scaled = (values * factor).to(dtype).to(values.dtype)
        lossy = (((scaled / factor) != values) & torch.isfinite(values)).reshape(len(values), -1).any(dim=1).cpu()
        exact[torch.nonzero(lossy).flatten() if index is None else index[lossy]] = False

    for slot in channels.slots:
        weight = slot.view.read()
        weight = weight.to(_wide(weight))
        factor = slot.factor(scale).to(weight.device, weight.dtype)
        by_entry = weight.T if slot.axis == "columns" else weight
        check(by_entry, factor[:, None], stored[id(slot.view.tensor())], slot.index)
        bias, holder = slot.view.read_bias(), slot.view.bias_tensor()
        if slot.axis == "rows" and bias is not None and holder is not None:
            check(bias.to(weight.dtype), factor, stored[id(holder)], slot.index)
    for norm in channels.norms:
        for name in ("weight", "bias"):
            parameter: Tensor | None = getattr(norm, name, None)
            if parameter is not None:
                values = parameter.detach().to(_wide(parameter))
                check(values, 1 / scale.to(values.device, values.dtype), stored[id(parameter)], None)
    return torch.where(exact.to(scale.device), scale, torch.ones_like(scale))


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
