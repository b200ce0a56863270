"""Proof of a scale group: the block's output with a scale in all places that it enters is what it was."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.models.forward.stops import Stop, WithoutHooks
from optimum_si.models.scale_groups import ScaledAxis, ScaleGroup


#: Relative change of the output up to which it is the same, by dtype. Powers of two lose no bit in a product, so what
#: holds changes nothing but the order of sums, even in what a model computes in fp32 whatever its dtype.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
#: What the scale on one side alone must change at least: else the call does not show whether it holds.
SEEN = 1e-3


class Proof:
    """One call of a block, against which scale groups are proven.

    Args:
        block: with dense weights, in the dtype of the call; nothing is written to it.
        stop: the call, of more than one token.
    """

    def __init__(self, block: nn.Module, stop: Stop) -> None:
        self._bare, self._stop = WithoutHooks(block), stop
        self._names = {id(parameter): f"block.{name}" for name, parameter in block.named_parameters()}
        self._generator = torch.Generator().manual_seed(0)
        self._before = self._outputs({})
        dtype = stop.hidden.dtype
        self.tolerance = TOLERANCE.get(dtype, TOLERANCE[torch.float32])

    def holds(self, group: ScaleGroup) -> bool:
        """Whether random powers of two leave the output as it was, and do not on one side alone."""
        scale = float(group.base) ** torch.randint(-1, 3, (group.size,), generator=self._generator)
        scale[0], scale[-1] = float(group.base), 1 / group.base  # never 1 throughout
        return self.change(group, scale) <= self.tolerance and all(
            self.change(group, scale, only=side) > SEEN for side in ("made", "read")
        )

    @torch.no_grad()
    def change(self, group: ScaleGroup, scale: Tensor, only: str = "") -> float:
        """Relative change of what the block returns under a scale; infinite where it fails.

        Args:
            group: where the scale enters.
            scale: s, [group.size].
            only: "made" for producers alone, "read" for the others; "" for both.
        """
        read = [scaled for scaled in group.axes if scaled.power > 0]
        made = [scaled for scaled in group.axes if scaled.power < 0]
        values: dict[str, Tensor] = {}
        if only != "made":
            self._scale(read, scale, values)
        if only != "read":
            self._scale(made, scale, values)
            for norm in group.norms:
                self._scale_norm(norm, scale, group.offset, values)
        try:
            after = self._outputs(values)
        except RuntimeError:
            return float("inf")
        if len(after) != len(self._before) or any(
            one.shape != other.shape for one, other in zip(after, self._before, strict=True)
        ):
            return float("inf")
        return max((_relative(one, other) for one, other in zip(after, self._before, strict=True)), default=0.0)

    def _scale(self, axes: Iterable[ScaledAxis], scale: Tensor, values: dict[str, Tensor]) -> None:
        for scaled in axes:
            view = scaled.view
            weight, bias = view.read(), view.read_bias()
            factor = scaled.factor(scale).to(weight.device, weight.dtype)
            rows = scaled.axis == "rows"
            name = self._names[id(view.tensor())]
            values[name] = view.embed(
                values.get(name, view.tensor().detach()), weight * (factor[:, None] if rows else factor)
            )
            holder = view.bias_tensor()
            if rows and bias is not None and holder is not None:
                name = self._names[id(holder)]
                values[name] = view.embed_bias(values.get(name, holder.detach()), bias * factor)

    def _scale_norm(self, norm: nn.Module, scale: Tensor, offset: float, values: dict[str, Tensor]) -> None:
        for local, added in (("weight", offset), ("bias", 0.0)):
            parameter: Tensor | None = getattr(norm, local, None)
            if parameter is not None:
                factor = scale.to(parameter.device, parameter.dtype)
                values[self._names[id(parameter)]] = (parameter.detach() + added) / factor - added

    @torch.no_grad()
    def _outputs(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        """Floating tensors in all that the block returns, and in what it leaves in its arguments."""
        output = self._stop.call(
            lambda *args, **kwargs: torch.func.functional_call(self._bare, dict(values), args, kwargs)
        )
        held = [container for container, _ in self._stop.held]
        return [value.clone() for value in _tensors([output, held])]


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        return [tensor for entry in value.values() for tensor in _tensors(entry)]
    if isinstance(value, (tuple, list)):
        return [tensor for entry in value for tensor in _tensors(entry)]
    return []


def _relative(after: Tensor, before: Tensor) -> float:
    finite = torch.isfinite(before)
    if not torch.equal(finite, torch.isfinite(after)):
        return float("inf")
    after, before = after[finite].double(), before[finite].double()
    norm = float(torch.linalg.vector_norm(before))
    return float(torch.linalg.vector_norm(after - before)) / norm if norm else float(after.any())
