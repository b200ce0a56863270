"""What one call of a block shows: which layers read the output of which norm, and in which order layers come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.models.experts.expert import Experts
from optimum_si.models.forward.stops import Stop, WithoutHooks, read_by
from optimum_si.models.norms import is_norm
from optimum_si.models.weight_view import WeightView

from .spec import ALL_OF


@dataclass(eq=False)
class Seen:
    """What was seen.

    Args:
        norms: for each norm, the names of those that read its output.
        inputs: for each reader in the order of calls, what it reads, as a number for each activation.
        made: numbers of activations that are the block's input or come out of a norm: no layer can scale these.
    """

    norms: dict[str, list[str]] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    made: set[int] = field(default_factory=set)


@torch.no_grad()
def seen_in(block: nn.Module, views: Mapping[str, WeightView], stop: Stop) -> Seen:
    """Run a block once and look.

    Args:
        block: with dense weights.
        views: its weights by name; parts of one module read the same.
        stop: the call.
    """
    found, numbers, alive = Seen(), dict[Any, int](), list[Tensor]()
    source: dict[int, str] = {}

    def number_of(values: Tensor) -> int:
        alive.append(values)  # else its storage could be another's
        place = values.untyped_storage().data_ptr(), values.storage_offset(), values.numel(), values.shape[-1]
        return numbers.setdefault(place, len(numbers))

    def reading(names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        number = number_of(read_by(args, kwargs))
        for name in names:
            if name not in found.inputs:
                found.inputs[name] = number
                if number in source:
                    found.norms[source[number]].append(name)

    def leaving(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and name not in found.norms:
            number = number_of(output)
            source[number] = name
            found.norms[name] = []
            found.made.add(number)

    handles = []
    for name, module, names in _watched(block, views):
        if is_norm(module):
            handles.append(module.register_forward_hook(lambda m, args, output, name=name: leaving(name, output)))
        if names:
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, args, kwargs, names=names: reading(names, args, kwargs), with_kwargs=True
                )
            )
    found.made.add(number_of(stop.hidden))
    try:
        stop.call(WithoutHooks(block))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _watched(block: nn.Module, views: Mapping[str, WeightView]) -> list[tuple[str, nn.Module, list[str]]]:
    """Name and module of norms and of all that may read activations, with the names by which readers are known."""
    of_module: dict[int, list[str]] = {}
    for local, view in views.items():
        of_module.setdefault(id(view.module), []).append(local)
    watched = []
    for name, module in block.named_modules():
        weight = module._parameters.get("weight")
        names = of_module.get(id(module), [])
        if isinstance(module, Experts):
            names = [name + ALL_OF]
        elif not names and weight is not None and weight.ndim == 2 and not isinstance(module, nn.Embedding):
            names = [name]  # a router
        if name and (names or is_norm(module)):
            watched.append((name, module, names))
    return watched
