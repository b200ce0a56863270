"""DeBERTa-v2 and v3: a post-norm encoder whose queries and keys also meet those of relative positions."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """v -> o. Queries and keys also meet those of positions, which the same layers make: both take the scale."""
    pairs = Pairs(block, views)
    q, k, v = (f"attention.self.{part}_proj" for part in ("query", "key", "value"))
    head_size = block.attention.self.attention_head_size
    shared = config.relative_attention and getattr(config, "share_att_key", False)
    mixed = config.relative_attention and not shared
    pairs.attention(q, k, v, "attention.output.dense", head_size, mixed=mixed)
    pairs.through("intermediate.dense", "output.dense", config.hidden_act)
    return pairs.found


FAMILY = Family(model_types=("deberta-v2",), scale_groups=scale_groups)
