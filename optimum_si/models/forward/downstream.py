"""What the whole model answers when one of its blocks gives other hidden states: the rest of it stays as it is."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .modes import inputs_for, without_cache
from .runs import BlockOutput, Run


#: Values of final outputs that may be in memory at once, for one part of a batch and for all references together.
_LIMIT = 2**27


class Downstream:
    """Runs a model from the output of one of its blocks to its end.

    Args:
        model: blocks after the one in question are still dense when it is asked; its blocks are suspended.
        batches: inputs of the model, those on which the answers are wanted.
        output: what blocks return; more than hidden states cannot be replaced.

    Attributes:
        every: final outputs are kept at every k-th position, so that they fit in memory.
        gives_logits: whether they are logits over two or more classes, or hidden states.
    """

    def __init__(self, model: nn.Module, batches: Sequence[dict[str, Tensor]], output: BlockOutput) -> None:
        self.model, self.output = model, output
        self.every, self.gives_logits = 1, False
        self.batches = [inputs_for(model, batch) for batch in batches]

    @torch.no_grad()
    def dense(self) -> list[Tensor]:
        """Final outputs of the model as it is, for each batch: every k-th position where all would be too many."""
        with without_cache(self.model):
            first = self._final(self.batches[0], None, -1)
            self.every = -(-first.numel() * len(self.batches) // _LIMIT)
            return [self._thinned(self._final(batch, None, -1)) for batch in self.batches]

    @torch.no_grad()
    def from_block(self, index: int, hidden: Sequence[Tensor]) -> list[Tensor]:
        """Final outputs when block ``index`` gives ``hidden`` [batch, tokens, features], one for each batch."""
        with without_cache(self.model):
            return [
                self._thinned(self._final(batch, values, index))
                for batch, values in zip(self.batches, hidden, strict=True)
            ]

    def _thinned(self, output: Tensor) -> Tensor:
        return output[:, :: self.every] if output.ndim == 3 else output

    def _final(self, batch: dict[str, Tensor], hidden: Tensor | None, index: int) -> Tensor:
        """[batch, tokens, values], computed in parts where the vocabulary is large."""
        rows = len(next(iter(batch.values())))
        config: Any = self.model.config
        size = getattr(config.get_text_config(), "vocab_size", 1) * next(iter(batch.values()))[0].numel()
        step = max(_LIMIT // size, 1)
        parts = []
        for start in range(0, rows, step):
            part = slice(start, start + step)
            inputs = {name: value[part] for name, value in batch.items()}
            parts.append(self._run(inputs, None if hidden is None else hidden[part], index))
        return torch.cat(parts)

    def _run(self, inputs: dict[str, Tensor], hidden: Tensor | None, index: int) -> Tensor:
        run = Run(self.model, inputs)
        stop = run.resume()
        while stop is not None:
            if stop.index > index or hidden is None:
                stop = run.resume()
            else:  # what blocks before it give does not matter
                values = stop.hidden if stop.index < index else hidden.to(stop.hidden.dtype)
                stop = run.resume(self.output.wrapped(values))
        output = run.output
        self.gives_logits = "logits" in output and output.logits.shape[-1] > 1
        return (output.logits if "logits" in output else output[0]).float()
