"""A pass over the dense model before anything is pruned: what allocation and transformations decide by."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from optimum_si.models.structure import Block
from optimum_si.models.weight_view import WeightView

from .layer_inputs import LayerInput, collect
from .modes import widened
from .streams import Stream


@dataclass(frozen=True, eq=False)
class DensePass:
    """Inputs of the layers to prune, of the model as it is at the moment.

    Args:
        model: dense, its blocks suspended.
        blocks: its blocks, in forward order.
        views: for each block, the weights whose inputs are wanted, by name inside the block.
        batches: calibration examples.
    """

    model: PreTrainedModel
    blocks: Sequence[Block]
    views: Sequence[Mapping[str, WeightView]]
    batches: Sequence[dict[str, Tensor]]

    def run(self, gram: bool = True) -> Iterator[tuple[int, Block, list[LayerInput]]]:
        """Each block in turn with the inputs of its layers.

        A block may be transformed as soon as it is given, as long as it computes the same function. Only what was
        collected of the block at hand is in memory, unless the caller keeps it.

        Args:
            gram: collect full Gram matrices instead of their diagonals.

        Yields:
            Position of the block, the block, and its inputs in module order.
        """
        stream = Stream(self.model, self.blocks, self.batches)
        try:
            while (index := stream.next) is not None:
                block, selected = self.blocks[index], self.views[index]
                waiting = stream.stops(index)
                tokens = sum(stop.num_tokens for stop in waiting.values())
                with widened(block.module) as dtype:
                    stops = [stop.cast(dtype) for stop in waiting.values()]
                    views = list(selected.values())
                    inputs, outputs = collect(block.module, views, stops, tokens, gram, keep_outputs=True)
                    for stop in stops:
                        stop.commit()
                    del stops
                yield index, block, inputs
                if index == len(self.blocks) - 1:
                    return
                stream.advance(index, dict(zip(waiting, outputs, strict=True)))
        finally:
            stream.close()
