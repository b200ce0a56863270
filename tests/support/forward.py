"""Standing at a block of a model in the middle of its forward pass, and a Wanda that knows no blocks at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from optimum_si.models.forward.modes import without_cache
from optimum_si.models.forward.runs import suspending
from optimum_si.models.forward.stops import Stop
from optimum_si.models.forward.streams import Stream
from optimum_si.models.structure import Block, find_structure


def modules_of(model: PreTrainedModel) -> list[nn.Module]:
    """The blocks of a model."""
    return [block.module for block in find_structure(model).blocks]


@contextmanager
def stopped_at(model: PreTrainedModel, inputs: dict[str, Tensor], index: int = 0) -> Iterator[tuple[Block, Stop]]:
    """A block of a model, and where the run of one batch waits for it."""
    blocks = find_structure(model).blocks
    with without_cache(model), suspending([block.module for block in blocks]):
        stream = Stream(model, [inputs])
        with torch.no_grad():
            for before in range(index):
                stream.advance([stop.call(blocks[before].module) for stop in stream.stops(before)])
        yield blocks[index], stream.stops(index)[0]
        stream.close()


@torch.no_grad()
def whole_model_wanda(model: PreTrainedModel, batches: list[dict[str, Tensor]]) -> None:
    """Half of each row pruned by |W| sqrt(H_jj), block after block, each on forward passes of the whole model."""
    for block in find_structure(model).blocks:
        sums: dict[str, Tensor] = {}

        handles = [
            view.module.register_forward_pre_hook(partial(_add_squares, sums, name))
            for name, view in block.views.items()
        ]
        for batch in batches:
            model(**batch)
        for handle in handles:
            handle.remove()
        for name, view in block.views.items():
            weight = view.read()
            score = weight.abs() * sums[name].sqrt().to(weight.dtype)
            weight.scatter_(1, score.argsort(dim=1, stable=True)[:, : weight.shape[1] // 2], 0)


def _add_squares(sums: dict[str, Tensor], name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
    sums[name] = sums.get(name, 0) + args[0].double().flatten(0, -2).square().sum(0)
