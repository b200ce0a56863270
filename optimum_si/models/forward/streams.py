"""Hidden states between blocks: those of the pruned model, and beside them those of the dense one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .calls import Call, Captured


@dataclass(eq=False)
class Stream:
    """Hidden states between blocks, for every batch: one of the pruned model, one of the dense model.

    Args:
        calls: of every block, for each batch.
        masks: padding masks of each batch.
        other_masks: those of the states that a decoder's cross attention reads.
        tokens: real tokens in all batches.
        sparse: inputs of the next block, from pruned blocks.
        dense: inputs of the next block, from dense blocks; the same tensors until a block is pruned. None in a run
            that has no use for it.
    """

    calls: list[list[Call]]
    masks: list[Tensor | None]
    other_masks: list[Tensor | None]
    tokens: int
    sparse: list[Tensor]
    dense: list[Tensor] | None

    @classmethod
    def start(cls, captured: Iterable[Captured], dense: bool) -> "Stream":
        """The streams at the first block; the dense one only where it is wanted."""
        batches = list(captured)
        hidden = [batch.hidden for batch in batches]
        tokens = sum(
            batch.hidden[..., 0].numel() if batch.mask is None else int(batch.mask.sum()) for batch in batches
        )
        calls, masks = [batch.calls for batch in batches], [batch.mask for batch in batches]
        others = [batch.other_mask for batch in batches]
        return cls(calls, masks, others, tokens, hidden, hidden if dense else None)

    def through(self, run: Callable[[Tensor, Call], Tensor], hidden: list[Tensor], number: int) -> list[Tensor]:
        """Each batch of hidden states through block ``number``, without gradients, in the dtype they are kept in."""
        with torch.no_grad():
            return [
                run(values, calls[number]).to(values.dtype) for values, calls in zip(hidden, self.calls, strict=True)
            ]
