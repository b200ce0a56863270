"""One pass over the dense model before anything is pruned: what allocation and transformations decide by."""

from collections.abc import Iterator, Mapping, Sequence

from optimum_si.models.structure import Block
from optimum_si.models.weight_view import WeightView
from optimum_si.pipeline.block import widened

from .layer_inputs import Site, collect
from .streams import Stream


def survey(
    blocks: Sequence[Block], views: Sequence[Mapping[str, WeightView]], stream: Stream
) -> Iterator[tuple[int, list[Site]]]:
    """Input moments of every layer on dense inputs, full Gram matrices included, one block after the other.

    Only the moments of the block at hand are in memory, unless the caller keeps them. The stream stays as it is.

    Args:
        blocks: of the model, dense.
        views: for each block, the weights whose inputs are wanted, by name inside the block.
        stream: inputs of the first block.

    Yields:
        The number of the block, and its input sites in module order.
    """
    hidden = stream.sparse
    for number, (block, selected) in enumerate(zip(blocks, views, strict=True)):
        with widened(block.module) as dtype:
            batches = (
                (values.to(dtype), calls[number], mask, other)
                for values, calls, mask, other in zip(
                    hidden, stream.calls, stream.masks, stream.other_masks, strict=True
                )
            )
            sites, outputs = collect(
                block.module, list(selected.values()), batches, stream.tokens, gram=True, keep_outputs=True
            )
        assert outputs is not None
        hidden = [output.to(values.dtype) for output, values in zip(outputs, hidden, strict=True)]
        yield number, sites
