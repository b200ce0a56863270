"""Passes over the dense model for transformations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from ..models.blocks import Block
from ..models.calls import BlockOutput, capture
from ..models.collect import Site
from ..models.views import WeightView
from ..streams import Stream
from ..survey import survey


@dataclass(frozen=True, eq=False)
class Surveyor:
    """Input moments of the layers to prune, of the model as it is at the moment.

    Args:
        model: dense.
        blocks: of it.
        views: for each block, the weights to prune.
        batches: of calibration examples.
        output: what blocks return.
    """

    model: PreTrainedModel
    blocks: Sequence[Block]
    views: Sequence[Mapping[str, WeightView]]
    batches: list[dict[str, Tensor]]
    output: BlockOutput

    def run(self) -> Iterator[tuple[Block, list[Site]]]:
        """Each block with its input sites; a block may be transformed as soon as it is given."""
        stream = Stream.start(capture(self.model, list(self.blocks), self.batches, self.output), dense=False)
        for number, sites in survey(self.blocks, self.views, stream):
            yield self.blocks[number], sites
