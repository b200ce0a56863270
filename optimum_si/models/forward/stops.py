"""Stops: the places in a model's own forward pass where a run of it waits, and what the block there is called with."""

from collections.abc import Callable, MutableMapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.errors import UnsupportedModelError
from optimum_si.models.experts.expert import REAL_TOKENS
from optimum_si.models.frames import frames_mask


@dataclass(frozen=True, eq=False)
class Stop:
    """A block that is about to be called.

    Args:
        index: position of the block in the model.
        args: positional arguments, as the model gives them.
        kwargs: keyword arguments, as the model gives them.
        mask: True at real tokens of the hidden states, bool [batch, tokens]; None where nothing is padded.
        other_mask: the same for the states that a decoder's cross attention reads.
        held: what mappings and lists among the arguments held at the stop: blocks may hand each other keys and values
            in them (Gemma 3n). Every call begins with that.
        origin: the stop that this is a copy of in another dtype; None where it is none.
    """

    index: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    mask: Tensor | None = None
    other_mask: Tensor | None = None
    held: tuple[tuple[Any, Any], ...] = field(default=())
    origin: "Stop | None" = None

    @classmethod
    def of(cls, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Stop":
        """A call as the model makes it."""
        return cls(index, args, kwargs, held=_held(args, kwargs))

    @property
    def hidden(self) -> Tensor:
        """Hidden states that the block is given, [batch, tokens, features] or [tokens, features]."""
        return read_by(self.args, self.kwargs)

    def cast(self, dtype: torch.dtype) -> "Stop":
        """The same call with its floating tensors in a dtype."""
        args, kwargs = cast(self.args, dtype), cast(self.kwargs, dtype)
        return replace(self, args=args, kwargs=kwargs, held=_held(args, kwargs), origin=self)

    def commit(self) -> None:
        """Have what the last call left in mappings and lists where the model looks for it."""
        if self.origin is None:
            return
        for (ours, before), (theirs, _) in zip(self.held, self.origin.held, strict=True):
            if ours is theirs:
                continue
            dtype = self.origin.hidden.dtype
            if isinstance(ours, list):
                theirs[len(before) :] = [cast(value, dtype) for value in ours[len(before) :]]
            else:
                theirs.update({k: cast(value, dtype) for k, value in ours.items() if before.get(k) is not value})

    def gives(self, values: Tensor) -> bool:
        """Whether an activation is one of the other states that the block is called with (an encoder's)."""
        others = [*self.args[1:], *(value for name, value in self.kwargs.items() if name != "hidden_states")]
        return any(values is other for other in others) and values.ndim == 3

    @property
    def other_states(self) -> Tensor | None:
        """Hidden states of an encoder that the block is called with."""
        values = [*self.args, *self.kwargs.values()]
        hidden = self.hidden
        found = (value for value in values if isinstance(value, Tensor) and value is not hidden)
        return next((value for value in found if value.is_floating_point() and value.ndim == 3), None)

    def mask_of(self, values: Tensor) -> Tensor | None:
        """The padding mask of an activation inside the block."""
        return self.other_mask if self.gives(values) else self.mask

    def for_each_example(self, values: Tensor) -> Tensor:
        """An activation inside the block; one that all examples share, such as relative positions, for each of them.

        It would weigh less the more examples a batch has.
        """
        hidden = self.hidden
        once = values.ndim == hidden.ndim == 3 and len(values) == 1 and values.shape[1] != hidden[..., 0].numel()
        return values.expand(len(hidden), -1, -1) if once else values

    @property
    def num_tokens(self) -> int:
        """Real tokens of the hidden states."""
        return self.hidden[..., 0].numel() if self.mask is None else int(self.mask.sum())

    def call(self, block: Callable[..., Any]) -> Any:
        """Whatever the block returns; its own hooks have run, or will, where the model calls it."""
        run = block.forward if isinstance(block, nn.Module) else block
        for container, before in self.held:
            container.clear()
            container.extend(before) if isinstance(container, list) else container.update(before)
        marked = REAL_TOKENS.set(self.mask)
        try:
            return run(*self.args, **self.kwargs)
        finally:
            REAL_TOKENS.reset(marked)

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


def read_by(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The activation that a block, a layer or a norm is called with.

    Raises:
        UnsupportedModelError: for a call without any.
    """
    for value in [*args[:1], kwargs.get("hidden_states"), *args, *kwargs.values()]:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
    raise UnsupportedModelError(
        f"a block is called without hidden states: {len(args)} arguments and {sorted(kwargs)}. Leave its stack out "
        "(stacks=...)."
    )


def hidden_of(output: Any) -> Tensor:
    """The hidden states in what a block returns."""
    if isinstance(output, MutableMapping):
        output = list(output.values())
    return output[0] if isinstance(output, (tuple, list)) else output


def _held(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, Any], ...]:
    found: dict[int, Any] = {}
    for value in [*args, *kwargs.values()]:
        _find_containers(value, found)
    return tuple((value, copy(value)) for value in found.values())


def _find_containers(value: Any, found: dict[int, Any]) -> None:
    """Mappings, lists, and attributes of caches, in which a block may leave something."""
    if type(value).__module__ == "transformers.cache_utils" and not isinstance(value, MutableMapping):
        value = value.__dict__
        inner = [*value.values()]
    elif isinstance(value, (MutableMapping, list)):
        inner = [*(value if isinstance(value, list) else value.values())]
    else:
        return
    if id(value) not in found:
        found[id(value)] = value
        for entry in inner:
            _find_containers(entry, found)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors inside arguments or outputs, in a dtype; the very same object where all are in it."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        entries = [cast(entry, dtype) for entry in value]
        if all(new is old for new, old in zip(entries, value, strict=True)):
            return value
        return type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)  # namedtuples
    if isinstance(value, MutableMapping):
        changed = {name: cast(entry, dtype) for name, entry in value.items()}
        if all(changed[name] is entry for name, entry in value.items()):
            return value
        result = copy(value)
        result.update(changed)
        return result
    return value


def padding_mask(mask: Tensor | None, hidden: Tensor, frames: Any = None) -> Tensor | None:
    """bool like the first two axes of hidden states [batch, tokens, features]; None where nothing is padded.

    States of several streams [streams, batch, tokens, features] (Gemma 3n) have one mask.

    Args:
        mask: an attention mask of the model's inputs, or None.
        hidden: states inside the model.
        frames: module that knows how many frames of hidden states it makes of samples or of frames of a spectrogram,
            or None.
    """
    if mask is None or mask.ndim != 2 or hidden.ndim < 3:
        return None
    if hidden.ndim == 4 and mask.shape == hidden.shape[1:3]:
        hidden = hidden[0]
    if mask.shape != hidden.shape[:2] and mask.T.shape == hidden.shape[:2]:
        mask = mask.T  # tokens first (XLNet)
    if mask.shape != hidden.shape[:2] and frames is not None and len(mask) == len(hidden):
        mask = frames_mask(frames, mask, hidden.shape[1])
    if mask.shape != hidden.shape[:2] or bool(mask.all()):
        return None
    return mask.bool().to(hidden.device)
