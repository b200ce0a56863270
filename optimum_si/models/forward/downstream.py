"""What the whole model answers when one of its blocks gives other hidden states: the rest of it stays as it is."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.models.structure import Block

from .calls import BlockOutput, inputs_for, replaced_forwards, without_cache


#: Values of final outputs that may be in memory at once, for one part of a batch and for all references together.
_LIMIT = 2**27


class Downstream:
    """Runs a model from the output of one of its blocks to its end.

    Args:
        model: blocks after the one in question are still dense when it is asked.
        blocks: its blocks, in forward order.
        batches: inputs of the model, those on which the answers are wanted.
        output: what blocks return; more than hidden states cannot be replaced.

    Attributes:
        every: final outputs are kept at every k-th position, so that they fit in memory.
        gives_logits: whether they are logits over two or more classes, or hidden states.
    """

    def __init__(
        self, model: nn.Module, blocks: list[Block], batches: Sequence[dict[str, Tensor]], output: BlockOutput
    ) -> None:
        self.model, self.modules, self.output = model, [block.module for block in blocks], output
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
    def from_block(self, number: int, hidden: Sequence[Tensor]) -> list[Tensor]:
        """Final outputs when block ``number`` gives ``hidden`` [batch, tokens, features], one for each batch."""
        with without_cache(self.model):
            return [
                self._thinned(self._final(batch, values, number))
                for batch, values in zip(self.batches, hidden, strict=True)
            ]

    def _thinned(self, output: Tensor) -> Tensor:
        return output[:, :: self.every] if output.ndim == 3 else output

    def _final(self, batch: dict[str, Tensor], hidden: Tensor | None, number: int) -> Tensor:
        """[batch, tokens, values], computed in parts where the vocabulary is large."""
        rows = len(next(iter(batch.values())))
        config: Any = self.model.config
        size = getattr(config.get_text_config(), "vocab_size", 1) * next(iter(batch.values()))[0].numel()
        step = max(_LIMIT // size, 1)
        parts = []
        for start in range(0, rows, step):
            part = slice(start, start + step)
            inputs = {name: value[part] for name, value in batch.items()}
            parts.append(self._run(inputs, None if hidden is None else hidden[part], number))
        return torch.cat(parts)

    def _run(self, inputs: dict[str, Tensor], hidden: Tensor | None, number: int) -> Tensor:
        order = {id(module): place for place, module in enumerate(self.modules)}

        def replacement(module: nn.Module) -> Any:
            def forward(*args: Any, **kwargs: Any) -> Any:
                values = args[0] if args else kwargs["hidden_states"]
                if order[id(module)] == number and hidden is not None:
                    values = hidden.to(values.dtype)
                return self.output.wrapped(values)

            return forward

        with replaced_forwards(self.modules[: number + 1], replacement):
            output = self.model(**inputs)
        self.gives_logits = "logits" in output and output.logits.shape[-1] > 1
        return (output.logits if "logits" in output else output[0]).float()
