"""Stops: the places in a model's own forward pass where a run of it waits, and what the block there is called with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Stop:
    """A block that is about to be called.

    Args:
        index: position of the block in the model.
        args: positional arguments, as the model gives them.
        kwargs: keyword arguments, as the model gives them.
        mask: True at real tokens of the hidden states, bool [batch, tokens]; None where nothing is padded.
        other_mask: the same for the states that a decoder's cross attention reads.
    """

    index: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    mask: Tensor | None = None
    other_mask: Tensor | None = None

    @property
    def hidden(self) -> Tensor:
        """Hidden states that the block is given, [batch, tokens, features]."""
        return self.args[0] if self.args else self.kwargs["hidden_states"]

    def cast(self, dtype: torch.dtype) -> "Stop":
        """The same call with its floating tensors in a dtype."""
        return replace(self, args=cast(self.args, dtype), kwargs=cast(self.kwargs, dtype))

    def gives(self, values: Tensor) -> bool:
        """Whether an activation is one of the other states that the block is called with (an encoder's)."""
        others = [*self.args[1:], *(value for name, value in self.kwargs.items() if name != "hidden_states")]
        return any(values is other for other in others) and values.ndim == 3

    def mask_of(self, values: Tensor) -> Tensor | None:
        """The padding mask of an activation inside the block."""
        return self.other_mask if self.gives(values) else self.mask

    @property
    def num_tokens(self) -> int:
        """Real tokens of the hidden states."""
        return self.hidden[..., 0].numel() if self.mask is None else int(self.mask.sum())

    def call(self, block: Callable[..., Any]) -> Any:
        """Whatever the block returns; its own hooks have run, or will, where the model calls it."""
        run = block.forward if isinstance(block, nn.Module) else block
        return run(*self.args, **self.kwargs)

    def run(self, block: Callable[..., Any]) -> Tensor:
        """The block's hidden states, [batch, tokens, features]."""
        return hidden_of(self.call(block))


class WithoutHooks(nn.Module):
    """A block whose own hooks do not run: the model runs them where it calls the block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.block.forward(*args, **kwargs)


def hidden_of(output: Any) -> Tensor:
    """The hidden states in what a block returns."""
    return output[0] if isinstance(output, (tuple, list)) else output


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors inside arguments or outputs, in a dtype; everything else as it is."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        entries = [cast(entry, dtype) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)  # namedtuples
    if isinstance(value, dict):
        return {name: cast(entry, dtype) for name, entry in value.items()}
    return value


def padding_mask(mask: Tensor | None, hidden: Tensor) -> Tensor | None:
    """bool like the first two axes of hidden states [batch, tokens, features]; None where nothing is padded.

    Args:
        mask: an attention mask of the model's inputs, or None.
        hidden: states inside the model.
    """
    if mask is not None and mask.shape != hidden.shape[:2] and mask.T.shape == hidden.shape[:2]:
        mask = mask.T  # tokens first (XLNet)
    if mask is None or mask.shape != hidden.shape[:2] or bool(mask.all()):
        return None
    return mask.bool().to(hidden.device)
