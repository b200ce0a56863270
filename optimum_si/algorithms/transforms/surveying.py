"""Passes over the dense model for transformations."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from optimum_si.models.forward.calls import BlockOutput, capture
from optimum_si.models.forward.dense_pass import survey
from optimum_si.models.forward.layer_inputs import Site
from optimum_si.models.forward.streams import Stream
from optimum_si.models.structure import Block
from optimum_si.models.weight_view import WeightView


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
