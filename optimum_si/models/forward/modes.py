"""How a model is set up while it is run for statistics: inputs where it is, no dropout, no cache."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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


@contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """A model that fills no key-value cache for a while: each of its blocks runs many times."""
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


@contextmanager
def widened(block: nn.Module) -> Iterator[torch.dtype]:
    """A module in fp32 (fp64 where it is fp64) for a while: mathematics happens there, and is cast back once."""
    parameters = [*block.parameters(), *block.buffers()]
    narrow = [parameter.data for parameter in parameters]
    wide = torch.float64 if torch.float64 in [values.dtype for values in narrow] else torch.float32
    try:
        for parameter in parameters:
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(wide)
        yield wide
    finally:
        # Into the storage that they had, which may be part of something larger (experts).
        for parameter, values in zip(parameters, narrow, strict=True):
            if parameter.dtype != values.dtype and parameter.shape == values.shape:
                values.copy_(parameter.data)
                parameter.data = values
            elif parameter.dtype != values.dtype:
                parameter.data = parameter.data.to(values.dtype)


@contextmanager
def replaced(block: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """A module with other values of some parameters for a while, by name inside it."""
    before = {name: block.get_parameter(name).detach().clone() for name in values}
    try:
        for name, value in values.items():
            block.get_parameter(name).data.copy_(value)
        yield
    finally:
        for name, value in before.items():
            block.get_parameter(name).data.copy_(value)
