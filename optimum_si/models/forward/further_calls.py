"""Layers that a block calls more than once, on different activations (DeBERTa's query and key)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .stops import Stop, WithoutHooks, read_by


#: For each call of a block, what a layer reads after its first call.
Further = Mapping[nn.Module, Sequence[Sequence[Tensor]]]


def called_again(block: nn.Module, stop: Stop, layers: Iterable[nn.Module]) -> frozenset[nn.Module]:
    """Layers that one call of the block calls more than once."""
    counts = Counter(module for module, _ in _read(block, stop, layers))
    return frozenset(module for module, count in counts.items() if count > 1)


def further_inputs(block: nn.Module, stops: Sequence[Stop], layers: Iterable[nn.Module]) -> Further:
    """What the dense block gives these layers after their first call.

    Args:
        block: with dense weights.
        stops: its calls.
        layers: that it calls more than once.
    """
    found: dict[nn.Module, list[list[Tensor]]] = {layer: [[] for _ in stops] for layer in layers}
    for position, stop in enumerate(stops):
        seen: set[nn.Module] = set()
        read = _read(block, stop, found)
        again = {id(values): stop.for_each_example(values) for _, values in read}  # readers of one activation share it
        for module, values in read:
            if module in seen:
                found[module][position].append(again[id(values)])
            seen.add(module)
    return found


@torch.no_grad()
def _read(block: nn.Module, stop: Stop, layers: Iterable[nn.Module]) -> list[tuple[nn.Module, Tensor]]:
    """Each call of a layer, in order, with what it reads."""
    read: list[tuple[nn.Module, Tensor]] = []

    def reading(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        read.append((module, read_by(args, kwargs)))

    handles = [layer.register_forward_pre_hook(reading, with_kwargs=True) for layer in layers]
    try:
        stop.call(WithoutHooks(block))
    finally:
        for handle in handles:
            handle.remove()
    return read
