"""Absorption: the scale goes into the weights on both sides, and the function stays the same (Eq. 3)."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from optimum_si.errors import UnsupportedModelError
from optimum_si.models.scale_groups import ScaleGroup

from .scales import power_of_two


def absorb(group: ScaleGroup, scale: Tensor) -> None:
    """Multiply consumers' columns by s and divide their producer by it, in place.

    Exact to the last bit for powers of two within the range of the weights' dtype; ``absorb(group, 1 / scale)``
    undoes it.

    Args:
        group: where the scale enters.
        scale: s > 0, [group.size].

    Raises:
        UnsupportedModelError: for a group without a producer that can take 1 / s.
    """
    if not group.absorbable:
        raise UnsupportedModelError(f"channels {group.name!r} have no producer that can absorb a scale.")
    for scaled in group.axes:
        weight = scaled.view.read()
        factor = scaled.factor(scale).to(weight.device, _wide(weight))
        if scaled.axis == "columns":
            scaled.view.write(weight.to(factor.dtype) * factor)
        else:
            scaled.view.write(weight.to(factor.dtype) * factor[:, None])
            bias = scaled.view.read_bias()
            if bias is not None:
                scaled.view.write_bias(bias.to(factor.dtype) * factor)
    for norm in group.norms:
        for name in ("weight", "bias"):
            parameter: Tensor | None = getattr(norm, name, None)
            if parameter is not None:
                values, offset = parameter.detach(), group.offset if name == "weight" else 0.0
                divisor = scale.to(values.device, _wide(values))
                divided = (values.to(divisor.dtype) + offset) / divisor - offset
                # 1 + w has fewer bits of w than w itself.
                values.copy_(torch.where(divisor == 1, values.to(divisor.dtype), divided))


def absorbed_scales(scale_groups: Iterable[ScaleGroup], scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The powers of two that absorption folds into a block, by the name of their scale group.

    Args:
        scale_groups: of the block.
        scales: learned s, by the name of its scale group.
    """
    return {
        entry.name: power_of_two(scales[entry.name], entry.base)
        for entry in scale_groups
        if entry.absorbable and entry.name in scales
    }


def exact_scale(group: ScaleGroup, scale: Tensor, stored: Mapping[int, torch.dtype]) -> Tensor:
    """``scale`` with 1 wherever absorbing it would lose a bit in the dtype that a parameter is stored in.

    fp16 has few exponents: halving a weight below 1e-4 makes it subnormal.

    Args:
        group: where the scale enters.
        scale: powers of two, [group.size].
        stored: dtype of each parameter by its id.
    """
    exact = torch.ones(group.size, dtype=torch.bool)

    def check(values: Tensor, factor: Tensor, dtype: torch.dtype, index: Tensor | None, offset: float = 0.0) -> None:
        scaled = ((values + offset) * factor - offset).to(dtype).to(values.dtype)
        back = (scaled + offset) / factor
        lossy = (back - offset != values) | (back != values + offset)
        lossy = (lossy & torch.isfinite(values)).reshape(len(values), -1).any(dim=1).cpu()
        exact[torch.nonzero(lossy).flatten() if index is None else index[lossy]] = False

    for scaled in group.axes:
        weight = scaled.view.read()
        weight = weight.to(_wide(weight))
        factor = scaled.factor(scale).to(weight.device, weight.dtype)
        by_entry = weight.T if scaled.axis == "columns" else weight
        check(by_entry, factor[:, None], stored[id(scaled.view.tensor())], scaled.index)
        bias, holder = scaled.view.read_bias(), scaled.view.bias_tensor()
        if scaled.axis == "rows" and bias is not None and holder is not None:
            check(bias.to(weight.dtype), factor, stored[id(holder)], scaled.index)
    for norm in group.norms:
        for name in ("weight", "bias"):
            parameter: Tensor | None = getattr(norm, name, None)
            if parameter is not None:
                values = parameter.detach().to(_wide(parameter))
                offset = group.offset if name == "weight" else 0.0
                check(values, 1 / scale.to(values.device, values.dtype), stored[id(parameter)], None, offset)
    return torch.where(exact.to(scale.device), scale, torch.ones_like(scale))


def _wide(tensor: Tensor) -> torch.dtype:
    """The dtype to compute in: fp32, or fp64 where the tensor is fp64."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
