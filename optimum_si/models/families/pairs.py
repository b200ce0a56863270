"""What pages of families share: pairs by the names of modules inside a block."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from optimum_si.models.activations import HOMOGENEOUS_DEGREE
from optimum_si.models.experts.expert import Expert, Experts
from optimum_si.models.scale_groups import (
    ScaleGroup,
    linear_to_linear,
    norm_to_linears,
    query_with_key,
    value_to_output,
)
from optimum_si.models.weight_view import WeightView


class Pairs:
    """Scale groups of one block, added by the names of its modules; one that the block lacks a part of is left out.

    Args:
        block: the block.
        views: its weights by name.

    Attributes:
        found: what was added.
    """

    def __init__(self, block: nn.Module, views: Mapping[str, WeightView]) -> None:
        self.views, self.found = views, list[ScaleGroup]()
        self._block, self._modules = block, dict(block.named_modules())

    def norm(self, norm: str, *readers: str) -> None:
        """A norm whose output feeds only these layers, or mixtures and MLPs with all that reads their input."""
        module = self._modules.get(norm)
        views: list[WeightView | None] = []
        for reader in readers:
            known = self.views.get(reader)
            views += [known] if known is not None else first_layers(self._modules.get(reader), reader, self.views)
        found = [view for view in views if view is not None]
        if module is not None and found and len(found) == len(views):
            self.found.append(norm_to_linears(f"{norm}->{','.join(map(_short, readers))}", module, found))

    def attention(
        self,
        query: str,
        key: str,
        value: str,
        output: str,
        head_size: int,
        rotary_size: int | None = None,
        interleaved: bool = False,
        mixed: bool = False,
        name: str = "",
    ) -> None:
        """v -> o, and q <-> k.

        Args:
            query, key, value, output: names of the layers.
            head_size: channels of a head.
            rotary_size, interleaved: of RoPE, as for :func:`query_with_key`.
            mixed: whether something stands between queries, keys and their product that mixes channels, as a norm.
            name: put before the names of the pairs, where a block has more than one attention.
        """
        q, k, v, o = (self.views.get(layer) for layer in (query, key, value, output))
        if v is not None and o is not None and o.shape[1] % v.shape[0] == 0:
            self.found.append(value_to_output(f"{name}v->o", v, o, head_size))
        if q is not None and k is not None and not mixed:
            self.found.append(query_with_key(f"{name}q<->k", q, k, head_size, rotary_size, interleaved))

    def through(self, producer: str, consumer: str, activation: str | None = None) -> None:
        """A layer to the next one, through an activation or none; nothing where that lets no scale through."""
        first, last = self.views.get(producer), self.views.get(consumer)
        degree = 1 if activation is None else HOMOGENEOUS_DEGREE.get(activation)
        if first is not None and last is not None and degree is not None:
            self.found.append(linear_to_linear(f"{_short(producer)}->{_short(consumer)}", first, last, degree))


def first_layers(module: Any, name: str, views: Mapping[str, WeightView]) -> list[WeightView | None]:
    """All that reads the input of a gated MLP or of a mixture: first layers, those of each expert, and routers.

    Args:
        module: the MLP.
        name: of it inside the block.
        views: of the block; routers are none of them.

    Returns:
        The readers; [None] where some of them are not known, such as experts that are no linear layers now.
    """
    if module is None or any(parameter.ndim > 2 for parameter in module.parameters()):
        return [None]
    routed = {id(inner) for part in module.modules() if isinstance(part, Experts) for inner in part.modules()}
    known = {id(view.module) for view in views.values()}
    last = tuple(f"{name}.{local}.{part.last}" for local, part in module.named_modules() if isinstance(part, Expert))
    found: list[WeightView | None] = [
        view
        for local, view in views.items()
        if local.startswith(f"{name}.") and local not in last and not local.endswith((".down_proj", ".w2"))
    ]
    for local, part in module.named_modules():
        weight = part._parameters.get("weight")
        if weight is not None and weight.ndim == 2 and id(part) not in known | routed:
            found.append(WeightView(f"{name}.{local}", part))
    return found


def rotary_size(config: Any, head_size: int) -> int:
    """Rotated channels of a head, by the config."""
    parameters: Any = getattr(config, "rope_parameters", None) or {}
    return int(head_size * (parameters.get("partial_rotary_factor") or 1.0))


def head_size_of(config: Any) -> int:
    """Channels of a head, by the config."""
    own = getattr(config, "head_dim", None)
    return int(own) if own else int(config.hidden_size // config.num_attention_heads)


def has_any(module: Any, names: Sequence[str]) -> bool:
    """Whether a module has any of these parts."""
    return any(getattr(module, name, None) is not None for name in names)


def _short(name: str) -> str:
    return name.rsplit(".", 1)[-1].removesuffix("_proj")
