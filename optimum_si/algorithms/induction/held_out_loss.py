"""Judging a block by what the whole model loses on held-out windows."""

from collections.abc import Sequence

from torch import Tensor, nn

from optimum_si.algorithms.block_state import BlockState, Weights
from optimum_si.models.forward.downstream import Downstream
from optimum_si.models.forward.runs import BlockOutput

from .divergence import divergence


class HeldOutLoss:
    """Divergence of the model's final outputs from the dense model's, blocks after the one in question being dense.

    Args:
        model: dense when this is made, its blocks suspended.
        batches: held-out inputs of the model.
        masks: bool [batch, tokens] of real tokens for each batch, or None.
        output: what the blocks return.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[dict[str, Tensor]],
        masks: Sequence[Tensor | None],
        output: BlockOutput,
    ) -> None:
        self.downstream = Downstream(model, batches, output)
        self.references = self.downstream.dense()
        self.masks = [None if mask is None else mask[:, :: self.downstream.every] for mask in masks]

    def __call__(self, state: BlockState, weights: Weights) -> float:
        """KL divergence from the dense model's predictions, or the relative squared error of its hidden states.

        Args:
            state: the block; ``state.validation`` are the same batches.
            weights: to run the block with.
        """
        outputs = self.downstream.from_block(state.index, state.validation_outputs(weights))
        return divergence(outputs, self.references, self.masks, self.downstream.gives_logits)
