"""Streams: the runs of all batches, which move from block to block together."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from optimum_si.errors import UnsupportedModelError
from optimum_si.models.structure import Block

from .modes import inputs_for
from .runs import ModelRun
from .stops import Stop, cast


class Stream:
    """The runs of all batches through one model.

    Args:
        model: runs its own forward, inside :func:`suspending`.
        blocks: that the runs stop at, in the order of their calls.
        batches: inputs of each run.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[Block], batches: Sequence[dict[str, Tensor]]) -> None:
        self.model, self.blocks = model, blocks
        padding = [block.padding for block in blocks]
        self.runs = [ModelRun(model, inputs_for(model, batch), padding) for batch in batches]
        self._done = -1
        try:
            for run in self.runs:
                run.resume()
        except BaseException:
            self.close()
            raise

    @property
    def next(self) -> int | None:
        """Position of the block that runs wait at and none is behind; None where all have ended.

        Raises:
            UnsupportedModelError: where a run came to a block that is done.
        """
        waiting = [run.stop.index for run in self.runs if run.stop is not None]
        if not waiting:
            return None
        if (index := min(waiting)) <= self._done:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} calls block {self.blocks[index].name!r} again, or in another order, for "
                "some of the examples. Only models that call their blocks in one order can be pruned block by block: "
                "leave its stack out (stacks=...), or give examples of one kind."
            )
        return index

    def stops(self, index: int) -> dict[int, Stop]:
        """Where runs wait, by the position of their batch; runs that do not call the block are left out.

        Args:
            index: position of the block, as :attr:`next` gives it.
        """
        return {
            batch: run.stop for batch, run in enumerate(self.runs) if run.stop is not None and run.stop.index == index
        }

    def advance(self, index: int, outputs: Mapping[int, Any] | Any) -> None:
        """Let the runs that wait at a block go on.

        Args:
            index: position of the block.
            outputs: what it returned, by the position of the batch, or pairs of both; cast to the dtype that its
                input has.
        """
        for batch, output in outputs.items() if isinstance(outputs, Mapping) else outputs:
            run = self.runs[batch]
            assert run.stop is not None
            run.stop.commit()
            run.resume(cast(output, run.stop.hidden.dtype))
        self._done = index

    def close(self) -> None:
        """Leave all runs where they are."""
        for run in self.runs:
            run.close()


class Streams:
    """The runs of the pruned model and, where they are wanted, those of the dense one beside them.

    Args:
        model: pruned block by block while both go on.
        blocks: in the order of their calls.
        batches: of calibration examples.
        dense: whether runs of the dense model are wanted.

    Attributes:
        pruned: runs through pruned blocks.
        dense: runs through dense blocks; None where nobody asks for them.
        tokens: real tokens of the hidden states at the first stop.
    """

    def __init__(
        self, model: nn.Module, blocks: Sequence[Block], batches: Sequence[dict[str, Tensor]], dense: bool
    ) -> None:
        self.pruned = Stream(model, blocks, batches)
        self.dense = Stream(model, blocks, batches) if dense else None
        self.tokens = sum(run.stop.num_tokens for run in self.pruned.runs if run.stop is not None)

    def close(self) -> None:
        """Leave all runs where they are."""
        for stream in (self.pruned, self.dense):
            if stream is not None:
                stream.close()
