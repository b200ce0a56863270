"""How a model is set up while it is trained as a whole: what blocks keep, in which dtype they compute, products."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from optimum_si.models.forward.modes import widened


Result = TypeVar("Result")


@contextmanager
def checkpointed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Blocks that keep nothing but their inputs for the backward pass, for a while."""
    with _replaced(blocks, lambda forward: partial(_checkpoint, forward)):
        yield


def _checkpoint(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # Without dropout there is no random state that would have to be the same again.
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


@contextmanager
def widened_alone(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Blocks in fp32 for a while, within a model that stays in its dtype."""
    narrow = {parameter.dtype for block in blocks for parameter in block.parameters()} - {torch.float32, torch.float64}
    if not narrow:
        yield
        return
    dtype = narrow.pop()
    with _replaced(blocks, lambda forward: partial(_cast, forward, dtype)):
        with widened(nn.ModuleList(blocks)):
            yield


def _cast(forward: Callable[..., Any], dtype: torch.dtype, *args: Any, **kwargs: Any) -> Any:
    wide: Any = partial(_to, torch.float32)
    output = forward(*wide(args), **wide(kwargs))
    return _to(dtype, output)


def _to(dtype: torch.dtype, value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple):
        return tuple(_to(dtype, entry) for entry in value)
    return {name: _to(dtype, entry) for name, entry in value.items()} if isinstance(value, dict) else value


@contextmanager
def _replaced(blocks: Sequence[nn.Module], wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Blocks with their forward wrapped for a while."""
    own = [block.__dict__.get("forward") for block in blocks]
    for block in blocks:
        block.forward = wrap(block.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward  # type: ignore[method-assign]


@contextmanager
def fast_products(device: torch.device, wanted: bool = True) -> Iterator[None]:
    """Matrix products in a narrower format where the machine has units for it and it is wanted, sums in fp32.

    bf16 on CPUs, where activations are narrow too, which takes half the memory; TF32 on GPUs. Otherwise products are
    those of the values as they are.
    """
    narrow, on_cpu = wanted and has_fast_products(device), device.type == "cpu"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if not narrow else "medium" if on_cpu else "high")
    try:
        # Without a cache, which would hold weights as they were before a step.
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow and on_cpu, cache_enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def tried_in_fast_products(device: torch.device, run: Callable[[], Result]) -> Result | None:
    """What is computed in narrower products, without gradients; None where the model's own code does not take them.

    Under autocast a layer answers in another dtype than it was asked in, which some models write into tensors of the
    one that they expect (XMOD's adapters, experts that gather their tokens).
    """
    try:
        with fast_products(device), torch.no_grad():
            return run()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return None


def has_fast_products(device: torch.device) -> bool:
    """Whether a device multiplies faster in a narrower format than in fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    known = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
    return device.type == "cpu" and any(supported is not None and bool(supported()) for supported in known)


@contextmanager
def only_trained(model: nn.Module, values: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Parameters that are trained require gradients for a while, all others none."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    chosen = {id(value) for value in values.values()}
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in chosen)
        yield
    finally:
        for parameter, required in before:
            if id(parameter) in chosen:
                parameter.grad = None
            parameter.requires_grad_(required)
