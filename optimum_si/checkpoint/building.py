"""Building a model that a config describes, no further than its weights could fill: a config is only a claim."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from optimum_si.errors import CheckpointError


#: Modules that are built whatever is on disk, in a few seconds, and bytes of weights for each one more.
_MODULES, _BYTES_OF_MODULE = 1 << 15, 1 << 12
#: The same where each expert's matrices are modules of their own, as while a model is inspected.
WITH_EXPERTS = 1 << 18
#: Entries of a vector, such as the weight of a norm.
_VECTOR = 1 << 24


@contextmanager
def bounded_building(path: str, bytes_of_weights: int, modules: int | None = None) -> Iterator[None]:
    """Where models are built, in this thread, of no more modules than their weights can fill.

    Args:
        path: of the config, for the message.
        bytes_of_weights: of all files of weights.
        modules: that are built whatever the weights are; None stands for :data:`_MODULES`.

    Raises:
        CheckpointError: when there would be more.
    """
    here, count, most = threading.get_ident(), 0, max(modules or _MODULES, bytes_of_weights // _BYTES_OF_MODULE)

    def counted(parent: nn.Module, name: str, module: Any) -> None:
        nonlocal count
        count += threading.get_ident() == here
        if count > most:
            raise CheckpointError(
                f"{path!r} describes a model of more than {most:,} modules in config.json, and its weights have "
                f"{bytes_of_weights:,} bytes: the config is damaged, or belongs to other weights."
            )

    handle = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


def check_vectors(path: str, model: nn.Module) -> None:
    """Refuse a model with vectors that no model has, before anything is computed with them.

    Raises:
        CheckpointError: names one of them.
    """
    for name, value in model.named_parameters():
        if value.ndim == 1 and len(value) > _VECTOR:
            raise CheckpointError(
                f"{path!r} describes a {name} of {len(value):,} values in config.json: the config is damaged."
            )
