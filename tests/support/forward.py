"""Standing at a block of a model in the middle of its forward pass, and a Wanda that knows no blocks at all."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from support.reference_wanda import reference_masks
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
        stream = Stream(model, blocks, [inputs])
        with torch.no_grad():
            for before in range(index):
                stream.advance(before, {0: stream.stops(before)[0].call(blocks[before].module)})
        yield blocks[index], stream.stops(index)[0]
        stream.close()


@torch.no_grad()
def whole_model_wanda(model: PreTrainedModel, batches: list[dict[str, Tensor]]) -> None:
    """Half of each row pruned by |W| sqrt(H_jj), layer after layer, each on forward passes of the whole model."""
    layers = {view.module for block in find_structure(model).blocks for view in block.views.values()}
    names = {module: name for name, module in model.named_modules()}
    in_order = [names[module] for module in forward_order(model, layers, batches)]
    for name, mask in reference_masks(model, batches, in_order, 0.5).items():
        layer = model.get_submodule(name)
        (layer.weight if isinstance(layer, nn.Linear) else layer.weight.T)[mask] = 0


@torch.no_grad()
def forward_order(
    model: nn.Module, modules: Iterable[nn.Module], batches: Iterable[dict[str, Tensor]]
) -> list[nn.Module]:
    """Modules of a model in the order in which it calls them first."""
    reached: dict[nn.Module, None] = {}
    handles = [module.register_forward_pre_hook(lambda module, args: reached.setdefault(module)) for module in modules]
    with without_cache(model):
        for batch in batches:
            model(**batch)
    for handle in handles:
        handle.remove()
    return list(reached)
