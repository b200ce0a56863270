"""Finding the transformer blocks of a model, the weights in them, and the channels that can be scaled."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from optimum_si.errors import UnsupportedModelError

from .families import find_family
from .families.base import UNDECLARED, Family
from .scale_groups import ScaleGroup
from .weight_view import WeightView, is_conv1d, linear_views


@dataclass(frozen=True, eq=False)
class Block:
    """One transformer block.

    Args:
        name: module name in the model, such as "model.layers.0".
        module: the block.
        views: every weight that can be pruned, by its name inside the block.
        scale_groups: channels of this block whose scale can be learned, as its family declares them.
        no_shift: names inside the block whose bias is left alone.
    """

    name: str
    module: nn.Module
    views: Mapping[str, WeightView]
    scale_groups: list[ScaleGroup]
    no_shift: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Structure:
    """A model as the pruner sees it.

    Args:
        blocks: in forward order.
        family: the declared family, or :data:`UNDECLARED`.
        declared: whether pairs are known.
        untreated: names of weights inside blocks that cannot be treated (3-D experts, ...).
        other_lists: names of further block lists that stay dense (a decoder beside an encoder).
    """

    blocks: list[Block]
    family: Family
    declared: bool
    untreated: list[str]
    other_lists: list[str]


def find_structure(model: nn.Module) -> Structure:
    """Blocks, weight views and channels of any ``PreTrainedModel``.

    Raises:
        UnsupportedModelError: when no list of blocks with linear weights is found; names the modules seen.
    """
    config: Any = model.config
    prefix, modules, others = _block_list(model)
    if len({id(module) for module in modules}) < len(modules):
        raise UnsupportedModelError(
            f"{prefix!r} of {type(model).__name__} holds one block several times: pruning it for one of its places "
            "would change the others."
        )
    family = find_family(config.model_type)
    shared = _shared_parameters(model)
    blocks, untreated = [], []
    for index, module in enumerate(modules):
        name = f"{prefix}.{index}" if prefix else str(index)
        views = {view.name[len(name) + 1 :]: view for view in linear_views(module, name)}
        views = {local: view for local, view in views.items() if not _is_router(local, view, config)}
        groups = (family or UNDECLARED).scale_groups(module, views, config)
        groups = [_unabsorbable_if_shared(group, shared) for group in groups]
        blocks.append(Block(name, module, views, groups, (family or UNDECLARED).no_shift))
        untreated += _untreated(module, name, views)
    return Structure(blocks, family or UNDECLARED, family is not None, untreated, others)


def _block_list(model: nn.Module) -> tuple[str, nn.ModuleList, list[str]]:
    """Name and modules of the longest list of one class that holds linear weights, and the names of the others."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len({type(child) for child in module}) == 1
        and linear_views(module[0], "")
        and not isinstance(module[0], nn.Linear)
    }
    outermost = {
        name: module
        for name, module in found.items()
        if not any(other != name and name.startswith(other + ".") for other in found)
    }
    if not outermost:
        seen = [name for name, module in model.named_modules() if name and not list(module.children())]
        raise UnsupportedModelError(
            f"{type(model).__name__} has no list of transformer blocks with nn.Linear or Conv1D weights. Modules "
            f"seen: {', '.join(seen[:12])}{', ...' if len(seen) > 12 else ''}. optimum-si prunes a ModuleList of "
            "blocks of one class, as transformers models have."
        )
    longest = max(outermost, key=lambda name: len(outermost[name]))
    others = [f"{name} ({len(module)} blocks)" for name, module in outermost.items() if name != longest]
    return longest, outermost[longest], others


def _shared_parameters(model: nn.Module) -> set[int]:
    """ids of parameters that more than one module holds."""
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return {identity for identity, count in uses.items() if count > 1}


def _unabsorbable_if_shared(group: ScaleGroup, shared: set[int]) -> ScaleGroup:
    """A parameter that serves twice must not be scaled for one of its uses."""
    tensors: list[Tensor | None] = [scaled.view.tensor() for scaled in group.axes]
    tensors += [getattr(norm, name, None) for norm in group.norms for name in ("weight", "bias")]
    return (
        replace(group, absorbable=False)
        if any(id(tensor) in shared for tensor in tensors if tensor is not None)
        else group
    )


def _is_router(local: str, view: WeightView, config: Any) -> bool:
    """True for the layer that scores experts; routers stay dense."""
    experts = [getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")]
    last = local.rsplit(".", 1)[-1]
    return view.shape[0] in (1, *experts) and re.search(r"gate|router", last) is not None


def _untreated(module: nn.Module, prefix: str, views: Mapping[str, WeightView]) -> list[str]:
    """Weights of a block that no view covers: parameters of two or more dimensions outside linears and embeddings."""
    covered = {id(view.tensor()) for view in views.values()}
    left_dense = {
        id(child.weight)
        for child in module.modules()
        if isinstance(child, (nn.Embedding, nn.Linear)) or is_conv1d(child)
    }
    return [
        f"{prefix}.{name} {list(parameter.shape)}"
        for name, parameter in module.named_parameters()
        if parameter.ndim >= 2 and min(parameter.shape[-2:]) > 1 and id(parameter) not in covered | left_dense
    ]
