"""Blocks that a model calls more than once in one forward pass."""

from collections.abc import Sequence

from torch import Tensor, nn

from optimum_si.models.structure import Block

from .modes import inputs_for
from .runs import ModelRun, suspending
from .stops import Stop


def calls_of(model: nn.Module, block: Block, batches: Sequence[dict[str, Tensor]]) -> list[tuple[int, Stop]]:
    """Every call of one block, with the position of its batch; the block runs with the weights that it has.

    Args:
        model: whose forward is run.
        block: that it calls several times.
        batches: inputs of the model.
    """
    found = []
    with suspending([block.module]):
        for position, batch in enumerate(batches):
            run = ModelRun(model, inputs_for(model, batch), [block.padding])
            try:
                stop = run.resume()
                while stop is not None:
                    found.append((position, stop))
                    stop = run.resume()
            finally:
                run.close()
    return found
