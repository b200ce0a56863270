"""The calls of a block on calibration data, and what is learned on them (Eq. 7)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from optimum_si.models.forward.further_calls import Further
from optimum_si.models.forward.stops import Stop, hidden_of


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of calibration data at one block.

    Args:
        inputs: the block's call in the pruned model.
        dense_inputs: the block's call in the dense model.
        target: outputs of the dense block in the dense model, [batch, tokens, features].
        weight: what the error of each token counts, broadcasts against ``target``; None counts all alike.
    """

    inputs: Stop
    dense_inputs: Stop
    target: Tensor
    weight: Tensor | None = None

    def sums(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted squared error of ``output`` and squared norm of the target, summed over real tokens."""
        error, target = (output - self.target).square(), self.target.square()
        if self.weight is not None:
            error, target = error * self.weight, target * self.weight
        mask = self.inputs.mask
        if mask is not None:
            mask = mask.expand(error.shape[:-1])  # states of several streams have one mask
            error, target = error[mask], target[mask]
        return error.sum(), target.sum()

    def loss(self, output: Tensor) -> Tensor:
        """Relative squared error of ``output`` (Eq. 7)."""
        error, norm = self.sums(output)
        return error / norm.clamp_min(1e-30)

    def normalized(self) -> "Batch":
        """The batch with weights that bring the target of every token to the same norm.

        What follows a block normalizes each token, so its error matters relative to it. Tokens of huge norm
        (attention sinks) would otherwise be all that a plain MSE sees.
        """
        return replace(self, weight=1 / self.target.square().mean(dim=-1, keepdim=True).clamp_min(1e-12))


@dataclass(frozen=True, eq=False)
class Calls:
    """The calls of a block.

    Args:
        pruned: in the pruned model, in the dtype to compute in; one for each batch that calls the block, or several.
        dense: the same in the dense model; None where no stage asks for it.
        num_held_out: batches at the start that choices are made on.
        tokens: real tokens in all calls.
        origins: position of the batch that each call belongs to; None where there is one for each batch.
        normalized: whether errors of the block's output count relative to each token's norm.
        further: for layers that the block calls more than once, what they read after that.
    """

    pruned: Sequence[Stop]
    dense: Sequence[Stop] | None
    num_held_out: int
    tokens: int
    origins: Sequence[int] | None = None
    normalized: bool = True
    further: Further = field(default_factory=dict)

    def batches(self, dense_outputs: Sequence[Any]) -> list[Batch]:
        """With the outputs of the dense block as targets."""
        assert self.dense is not None
        batches = [
            Batch(stop, dense_stop, hidden_of(output).to(stop.hidden.dtype))
            for stop, dense_stop, output in zip(self.pruned, self.dense, dense_outputs, strict=True)
        ]
        return [batch.normalized() for batch in batches] if self.normalized else batches

    def is_held_out(self, call: int) -> bool:
        """Whether choices are made on a call; where all belong to one part, they have to serve for both."""
        return self._held_out[call]

    @cached_property
    def _held_out(self) -> list[bool]:
        origins = range(len(self.pruned)) if self.origins is None else self.origins
        held_out = [origin < self.num_held_out for origin in origins]
        return held_out if any(held_out) and not all(held_out) else [False] * len(held_out)
