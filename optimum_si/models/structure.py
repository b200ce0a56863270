"""Finding the transformer blocks of a model, the weights in them, and the channels that can be scaled."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from .experts.pairs import expert_groups, expert_splits
from .families import find_family
from .families.base import UNDECLARED, Family
from .routers import is_router
from .scale_groups import ScaleGroup, is_shared
from .splits import split_views
from .stacks import Padding, Stack, find_stacks, left_alone, modules_in_several
from .weight_view import WeightView, is_conv1d, linear_views


@dataclass(frozen=True, eq=False)
class Block:
    """One transformer block.

    Args:
        name: module name in the model, such as "model.layers.0".
        module: the block.
        views: every weight that can be pruned, by its name inside the block.
        scale_groups: channels of this block whose scale can be learned, as its family declares them.
        family: of its tower; :data:`UNDECLARED` where pairs are not known.
        stack: name of the list that it stands in.
        padding: where that of its hidden states is told.
    """

    name: str
    module: nn.Module
    views: Mapping[str, WeightView]
    scale_groups: list[ScaleGroup]
    family: Family = UNDECLARED
    stack: str = ""
    padding: Padding = field(default_factory=Padding)


@dataclass(frozen=True, eq=False)
class Structure:
    """A model as the pruner sees it.

    Args:
        blocks: of all stacks, in the order of their names; a run brings them into the order of the data.
        stacks: lists of blocks, in whatever tower.
        family: of the whole model, or :data:`UNDECLARED`.
        untreated: names of weights inside blocks that no method treats (convolutions, routers of their own make, ...).
        left_alone: names of lists that are no stacks: adapters, heads, what stands between towers.
        shared: ids of parameters that more than one module holds.
    """

    blocks: list[Block]
    stacks: list[Stack]
    family: Family
    untreated: list[str]
    left_alone: list[str]
    shared: frozenset[int] = frozenset()

    @property
    def undeclared(self) -> list[str]:
        """Names of the stacks whose pairs are not known."""
        return list(dict.fromkeys(block.stack for block in self.blocks if block.family is UNDECLARED))

    def in_order(self, names: Sequence[str]) -> "Structure":
        """The same with the blocks of these names, in their order."""
        by_name = {block.name: block for block in self.blocks}
        return replace(self, blocks=[by_name[name] for name in names])


def find_structure(model: nn.Module) -> Structure:
    """Blocks, weight views and channels of any ``PreTrainedModel``; of experts, inside :func:`experts_as_linears`.

    Raises:
        UnsupportedModelError: when no list of blocks with linear weights is found; names the modules seen.
    """
    config: Any = model.config
    stacks = find_stacks(model)
    shared, several = _shared_parameters(model), modules_in_several(stacks)
    apart = {id(inner) for _, module in several for inner in module.modules()}
    blocks, untreated = [], []
    for stack, name, module, in_several in _places(stacks, several):
        own: Any = getattr(stack.tower, "config", config)
        of_tower = find_family(own.model_type) or UNDECLARED
        views = {view.name[len(name) + 1 :]: view for view in linear_views(module, name)}
        views = {
            local: view
            for local, view in views.items()
            if not is_router(local, view.shape[0], own)
            and "adapter" not in local
            and (in_several or id(view.module) not in apart)
        }
        views = split_views(views, {**of_tower.splits(module, own), **expert_splits(module)})
        groups = [] if in_several else [*of_tower.scale_groups(module, views, own), *expert_groups(module, views)]
        # A parameter that serves twice must not be scaled for one of its uses.
        groups = [replace(group, absorbable=False) if is_shared(group, shared) else group for group in groups]
        blocks.append(Block(name, module, views, groups, of_tower, stack.name, stack.padding))
        untreated += _untreated(module, name, views, own)
    family = find_family(config.model_type) or UNDECLARED
    return Structure(blocks, stacks, family, untreated, left_alone(model), shared)


def _places(stacks: list[Stack], several: list[tuple[str, nn.Module]]) -> Iterator[tuple[Stack, str, nn.Module, bool]]:
    """Stack, name and module of each block, and whether it is a part that several others share."""
    for stack in stacks:
        for name, module in stack.modules.items():
            for inner, part in several:
                if inner.startswith(f"{name}."):
                    yield stack, inner, part, True
            yield stack, name, module, False


def _shared_parameters(model: nn.Module) -> frozenset[int]:
    """ids of parameters that more than one module holds."""
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return frozenset(identity for identity, count in uses.items() if count > 1)


def _untreated(module: nn.Module, prefix: str, views: Mapping[str, WeightView], config: Any) -> list[str]:
    """Weights of a block that no view covers: parameters of two or more dimensions outside linears and embeddings.

    Routers are dense on purpose.
    """
    covered = {id(view.tensor()) for view in views.values()}
    left_dense = {
        id(child.weight)
        for child in module.modules()
        if isinstance(child, (nn.Embedding, nn.Linear)) or is_conv1d(child)
    }
    return [
        f"{prefix}.{name} {list(parameter.shape)}"
        for name, parameter in module.named_parameters()
        if parameter.ndim >= 2
        and min(parameter.shape[-2:]) > 1
        and id(parameter) not in covered | left_dense
        and not is_router(name.removesuffix(".weight"), parameter.shape[0], config)
    ]
