"""Proof of a scale group: the block's output with a scale in all places that it enters is what it was."""

from collections.abc import Iterable, Mapping
from math import log2
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
#: Largest power of two.
_FARTHEST = 8


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

    def holds(self, group: ScaleGroup, sided: bool = True) -> bool:
        """Whether random powers of two leave the output as it was.

        Args:
            group: where they enter.
            sided: ask too whether each side alone changes the output, without which this call shows nothing.
        """
        scale = self._random(group)
        return self.change([(group, scale)]) <= self.tolerance and not (
            sided and any(self.change([(group, scale)], only=side) <= SEEN for side in ("made", "read"))
        )

    def all_hold(self, groups: Iterable[ScaleGroup]) -> bool:
        """Whether the output stays under scales in all of them at once."""
        return self.change([(group, self._random(group)) for group in groups]) <= self.tolerance

    def _random(self, group: ScaleGroup) -> Tensor:
        # Far apart, so that what is clipped shows even where the call itself stays within the limits.
        most = _FARTHEST // int(log2(group.base))
        exponents = torch.randint(-most, most + 1, (group.size,), generator=self._generator)
        exponents[0], exponents[-1] = most, -most  # never 0 throughout
        return torch.pow(float(group.base), exponents)

    @torch.no_grad()
    def change(self, scaled: Iterable[tuple[ScaleGroup, Tensor]], only: str = "") -> float:
        """Relative change of what the block returns under scales; infinite where it fails.

        Args:
            scaled: where each enters, and s, [group.size].
            only: "made" for producers alone, "read" for the others; "" for both.
        """
        values: dict[str, Tensor] = {}
        for group, scale in scaled:
            for axis in group.axes:
                if only != ("made" if axis.power > 0 else "read"):
                    self._scale(axis, scale, values)
            for norm in group.norms if only != "read" else ():
                self._scale_norm(norm, scale, group.offset, values)
        try:
            after = self._outputs(values)
        except RuntimeError:
            return float("inf")
        if [value.shape for value in after] != [value.shape for value in self._before]:
            return float("inf")
        return max((_relative(one, other) for one, other in zip(after, self._before, strict=True)), default=0.0)

    def _scale(self, scaled: ScaledAxis, scale: Tensor, values: dict[str, Tensor]) -> None:
        view, rows = scaled.view, scaled.axis == "rows"
        name = self._names[id(view.tensor())]
        whole = values.get(name, view.tensor().detach())
        factor = scaled.factor(scale).to(whole.device, whole.dtype)
        values[name] = view.embed(whole, view.read_in(whole) * (factor[:, None] if rows else factor))
        holder = view.bias_tensor()
        if rows and holder is not None:
            name = self._names[id(holder)]
            whole = values.get(name, holder.detach())
            values[name] = view.embed_bias(whole, view.of_outputs(whole) * factor)

    def _scale_norm(self, norm: nn.Module, scale: Tensor, offset: float, values: dict[str, Tensor]) -> None:
        for local, added in (("weight", offset), ("bias", 0.0)):
            parameter: Tensor | None = getattr(norm, local, None)
            if parameter is not None:
                name, factor = self._names[id(parameter)], scale.to(parameter.device, parameter.dtype)
                values[name] = (values.get(name, parameter.detach()) + added) / factor - added

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
