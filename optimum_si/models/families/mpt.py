"""MPT: LayerNorm, q, k and v in one layer, ALiBi, and a GELU MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, by_size
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """q, k and v one below the other."""
    width = config.d_model
    return {"attn.Wqkv": by_size(q=width, k=width, v=width)}


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers; q <-> k and v -> o unless they are clipped."""
    pairs = Pairs(block, views)
    q, k, v = (f"attn.Wqkv.{part}" for part in "qkv")
    pairs.norm("norm_1", q, k, v)
    pairs.norm("norm_2", "ffn.up_proj")
    if not config.attn_config.clip_qkv:
        pairs.attention(q, k, v, "attn.out_proj", config.d_model // config.n_heads)
    return pairs.found


FAMILY = Family(model_types=("mpt",), scale_groups=scale_groups, splits=splits)
