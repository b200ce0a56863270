"""Which weights of a model are pruned: ``include`` and ``exclude`` over the names of its layers."""

from typing import Any

from optimum_si.config.validators import matches
from optimum_si.errors import ConfigurationError

from .structure import Block, Structure
from .weight_view import WeightView


def select_views(
    structure: Structure,
    include: list[str] | None,
    exclude: list[str] | None,
    stacks: list[str] | None = None,
) -> list[dict[str, WeightView]]:
    """For each block, the views to prune, by name inside the block.

    Args:
        structure: of the model.
        include, exclude: globs over the names of layers; None for all, and for none.
        stacks: globs over the names of stacks; None for all.

    Raises:
        ConfigurationError: when a glob matches nothing, or nothing is left; names what there is.
    """
    known = [stack.name for stack in structure.stacks]
    for glob in stacks or []:
        if not any(matches(name, [glob]) for name in known):
            raise ConfigurationError(f"stacks={glob!r} matches none of this model's: {', '.join(map(repr, known))}.")
    names = [view.name for block in structure.blocks for view in block.views.values()]
    for kind, globs in (("include", include), ("exclude", exclude)):
        for glob in globs or []:
            if not any(matches(name, [glob]) for name in names):
                raise ConfigurationError(
                    f"{kind}={glob!r} matches none of the {len(names)} layers; their names look like "
                    f"{', '.join(map(repr, names[:8]))}."
                )

    def wanted(view: WeightView) -> bool:
        included = include is None or matches(view.name, include)
        return included and not matches(view.name, exclude or [])

    def in_stack(block: Block) -> bool:
        return stacks is None or matches(block.stack, stacks)

    selected = []
    seen: set[Any] = set()
    for block in structure.blocks:
        chosen = {}
        for local, view in block.views.items() if in_stack(block) else ():
            # Two modules that share one parameter are one weight: it is pruned once.
            identity = (id(view.tensor()), str(view.unfold), str(view.index))
            if wanted(view) and identity not in seen:
                seen.add(identity)
                chosen[local] = view
        selected.append(chosen)
    if not any(selected):
        raise ConfigurationError(
            f"include={include} and exclude={exclude} leave no layer to prune; there are {len(names)}, such as "
            f"{names[:4]}."
        )
    return selected
