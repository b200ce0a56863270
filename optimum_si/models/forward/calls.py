"""Running one block at a time: the arguments that a model gives to its blocks, captured once for all batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.errors import UnsupportedModelError
from optimum_si.models.structure import Block


@dataclass(frozen=True)
class Call:
    """What a block is called with beside its hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def cast(self, dtype: torch.dtype) -> "Call":
        """The call with its floating tensors in a dtype."""
        return Call(_cast(self.args, dtype), _cast(self.kwargs, dtype))

    def states(self) -> set[int]:
        """ids of the other states [batch, tokens, features] that a block is called with."""
        values = [*self.args, *self.kwargs.values()]
        return {id(value) for value in values if isinstance(value, Tensor) and value.ndim == 3}

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
        other_mask: the same for the states that a decoder's cross attention reads.
    """

    hidden: Tensor
    calls: list[Call]
    mask: Tensor | None
    other_mask: Tensor | None = None


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
            model(**inputs_for(model, {name: value[:1] for name, value in batch.items()}))
    finally:
        for handle in handles:
            handle.remove()
    if len(outputs) != len(blocks):
        raise UnsupportedModelError(
            f"{type(model).__name__} called its {len(blocks)} blocks in {blocks[0].name.rsplit('.', 1)[0]!r} "
            f"{len(outputs)} times: only models that call each block once are supported, not those that share one "
            "block between several places (as ALBERT does)."
        )
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
                    model(**inputs_for(model, batch))
                except _Done:
                    pass
            hidden = inputs[0][0]
            of_hidden, of_others = _mask_names(model, blocks)
            padding = _padding(batch.get(of_hidden), hidden)
            others = None if of_others is None else batch.get(of_others)
            calls = [call for _, call in inputs]
            yield Captured(hidden, calls, padding, None if others is None else others.bool().to(hidden.device))


def _mask_names(model: nn.Module, blocks: list[Block]) -> tuple[str, str | None]:
    """Names of the masks of the blocks' hidden states, and of other states that they attend to."""
    config: Any = model.config
    in_decoder = getattr(config, "is_encoder_decoder", False) and "decoder" in blocks[0].name
    return ("decoder_attention_mask", "attention_mask") if in_decoder else ("attention_mask", None)


def _padding(mask: Tensor | None, hidden: Tensor) -> Tensor | None:
    """bool like the first two axes of ``hidden``; None where nothing is padded."""
    if mask is not None and mask.shape != hidden.shape[:2] and mask.T.shape == hidden.shape[:2]:
        mask = mask.T  # tokens first (XLNet)
    if mask is None or mask.shape != hidden.shape[:2] or bool(mask.all()):
        return None
    return mask.bool().to(hidden.device)


def inputs_for(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch where the model is, features in its dtype."""
    parameter = next(model.parameters())
    return {
        name: value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
        for name, value in batch.items()
    }


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
    # Every module that has a config: stacks of an encoder-decoder hold copies of their own.
    found: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    found += [config.get_text_config() for config in found if hasattr(config, "get_text_config")]
    configs: dict[int, Any] = {id(config): config for config in found if hasattr(config, "use_cache")}
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
