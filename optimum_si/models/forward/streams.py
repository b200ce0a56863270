"""Streams: the runs of all batches, which move from block to block together."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from optimum_si.errors import UnsupportedModelError

from .modes import inputs_for
from .runs import ModelRun
from .stops import Stop, cast


class Stream:
    """The runs of all batches through one model.

    Args:
        model: runs its own forward, inside :func:`suspending`.
        batches: inputs of each run.
        in_decoder: whether the blocks are those of a decoder beside an encoder, which has masks of its own.
    """

    def __init__(self, model: nn.Module, batches: Sequence[dict[str, Tensor]], in_decoder: bool = False) -> None:
        self.model = model
        masks = ("decoder_attention_mask", "attention_mask") if in_decoder else ("attention_mask", None)
        self.runs = [ModelRun(model, inputs_for(model, batch), masks) for batch in batches]
        try:
            for run in self.runs:
                run.resume()
        except BaseException:
            self.close()
            raise

    def stops(self, index: int) -> list[Stop]:
        """Where the runs wait, which is the same block for all.

        Args:
            index: position of that block in the model.

        Raises:
            UnsupportedModelError: where a run has left the blocks out or calls them in another order.
        """
        stops = [run.stop for run in self.runs if run.stop is not None and run.stop.index == index]
        if len(stops) < len(self.runs):
            raise UnsupportedModelError(
                f"{type(self.model).__name__} does not call its blocks one after the other for every example: block "
                f"{index} was not the next one. Only models that do can be pruned block by block."
            )
        return stops

    def advance(self, outputs: Iterable[Any]) -> None:
        """Let every run go on to the next block.

        Args:
            outputs: what the block at hand returned for each batch; cast to the dtype that its input has.
        """
        for run, output in zip(self.runs, outputs, strict=True):
            assert run.stop is not None
            run.resume(cast(output, run.stop.hidden.dtype))

    def close(self) -> None:
        """Leave all runs where they are."""
        for run in self.runs:
            run.close()


class Streams:
    """The runs of the pruned model and, where they are wanted, those of the dense one beside them.

    Args:
        model: pruned block by block while both go on.
        batches: of calibration examples.
        in_decoder: as for :class:`Stream`.
        dense: whether runs of the dense model are wanted.

    Attributes:
        pruned: runs through pruned blocks.
        dense: runs through dense blocks; None where nobody asks for them.
        tokens: real tokens in all batches.
    """

    def __init__(self, model: nn.Module, batches: Sequence[dict[str, Tensor]], in_decoder: bool, dense: bool) -> None:
        self.pruned = Stream(model, batches, in_decoder)
        self.dense = Stream(model, batches, in_decoder) if dense else None
        self.tokens = sum(run.stop.num_tokens for run in self.pruned.runs if run.stop is not None)

    def close(self) -> None:
        """Leave all runs where they are."""
        for stream in (self.pruned, self.dense):
            if stream is not None:
                stream.close()
