"""Running one block at a time: the arguments that a model gives to its blocks, captured once for all batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModelError
from .blocks import Block


@dataclass(frozen=True)
class Call:
    """What a block is called with beside its hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self, block: Callable[..., Any], hidden: Tensor) -> Tensor:
        """The block's hidden states [batch, tokens, features], in the dtype of ``hidden``."""
        return hidden_of(block(hidden, *_cast(self.args, hidden.dtype), **_cast(self.kwargs, hidden.dtype)))


@dataclass(frozen=True)
class Captured:
    """Inputs of the first block, and the call of every block, for one batch.

    Args:
        hidden: input of the first block, [batch, tokens, features].
        calls: one for each block.
        mask: bool [batch, tokens], True at real tokens; None where nothing is padded.
    """

    hidden: Tensor
    calls: list[Call]
    mask: Tensor | None


class _Done(Exception):
    """Raised in the last block: the rest of the forward pass is not needed."""


class BlockOutput(Enum):
    """What every block of a model returns: hidden states alone, in a tuple of their own, or with more beside them."""

    TENSOR = "tensor"
    TUPLE = "tuple"
    MORE = "more"

    def wrapped(self, hidden: Tensor) -> Any:
        """Hidden states as a block would return them."""
        return hidden if self is BlockOutput.TENSOR else (hidden,)


def block_output(model: nn.Module, blocks: list[Block], batch: dict[str, Tensor]) -> BlockOutput:
    """See on the first example of a batch what the blocks of a model return."""
    outputs: list[Any] = []
    handles = [
        block.module.register_forward_hook(lambda module, args, output: outputs.append(output)) for block in blocks
    ]
    try:
        with torch.no_grad(), without_cache(model):
            model(**{name: value[:1].to(device_of(model)) for name, value in batch.items()})
    finally:
        for handle in handles:
            handle.remove()
    if all(isinstance(output, Tensor) for output in outputs):
        return BlockOutput.TENSOR
    single = all(isinstance(output, tuple) and len(output) == 1 for output in outputs)
    return BlockOutput.TUPLE if single else BlockOutput.MORE


def capture(
    model: nn.Module, blocks: list[Block], batches: list[dict[str, Tensor]], output: BlockOutput
) -> Iterator[Captured]:
    """The first block's inputs and every block's arguments, for each batch, at the cost of no block.

    Blocks are replaced by stubs that hand their input on, except in models whose blocks return more than hidden
    states (T5 passes its position bias from block to block): those run for real.
    """
    modules = [block.module for block in blocks]
    with torch.no_grad(), without_cache(model):
        for batch in batches:
            inputs: list[tuple[Tensor, Call]] = []
            with replaced_forwards(modules, partial(_recorder, inputs=inputs, total=len(modules), output=output)):
                try:
                    model(**{name: value.to(device_of(model)) for name, value in batch.items()})
                except _Done:
                    pass
            if len(inputs) < len(modules):
                raise UnsupportedModelError(
                    f"{type(model).__name__} called {len(inputs)} of the {len(modules)} blocks in "
                    f"{blocks[0].name.rsplit('.', 1)[0]!r}: only models that call each block once are supported."
                )
            mask = batch.get("attention_mask")
            hidden = inputs[0][0]
            if mask is None or mask.shape != hidden.shape[:2] or bool(mask.all()):
                padding = None
            else:
                padding = mask.bool().to(hidden.device)
            yield Captured(hidden, [call for _, call in inputs], padding)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's inputs belong."""
    return next(model.parameters()).device


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """A model without dropout for a while.

    Modes are restored module by module: parts of a model in training may be in evaluation mode on purpose.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def hidden_of(output: Any) -> Tensor:
    """The hidden states in what a block returns."""
    return output[0] if isinstance(output, (tuple, list)) else output


def _recorder(
    module: nn.Module, inputs: list[tuple[Tensor, Call]], total: int, output: BlockOutput
) -> Callable[..., Any]:
    """A forward that notes its arguments in ``inputs`` and hands its hidden states on."""
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        call = Call(args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"})
        inputs.append((hidden, call))
        if len(inputs) == total:
            raise _Done
        return original(*args, **kwargs) if output is BlockOutput.MORE else output.wrapped(hidden)

    return forward


@contextmanager
def replaced_forwards(modules: list[nn.Module], make: Callable[[nn.Module], Callable[..., Any]]) -> Iterator[None]:
    """Give each module another ``forward`` for a while."""
    before = [module.__dict__.get("forward") for module in modules]
    for module in modules:
        module.forward = make(module)
    try:
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward


@contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Blocks must not fill a key-value cache: each of them runs many times."""
    config: Any = model.config
    configs = {id(entry): entry for entry in (config, config.get_text_config()) if hasattr(entry, "use_cache")}
    before = {identity: entry.use_cache for identity, entry in configs.items()}
    try:
        for entry in configs.values():
            entry.use_cache = False
        yield
    finally:
        for identity, entry in configs.items():
            entry.use_cache = before[identity]


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors inside arguments, in the dtype that the block computes in."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(entry, dtype) for entry in value)
    if isinstance(value, dict):
        return {name: _cast(entry, dtype) for name, entry in value.items()}
    return value
