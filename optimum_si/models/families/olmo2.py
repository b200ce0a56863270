"""OLMo 2 and 3: norms behind attention and MLP, and across all queries and keys; a gated MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """v -> o; up -> down: norms stand where only the residual reads them."""
    pairs = Pairs(block, views)
    q, k, v, o = (f"self_attn.{part}_proj" for part in "qkvo")
    pairs.attention(q, k, v, o, block.self_attn.head_dim, mixed=True)
    pairs.through("mlp.up_proj", "mlp.down_proj")
    return pairs.found


FAMILY = Family(model_types=("olmo2", "olmo3"), scale_groups=scale_groups)
