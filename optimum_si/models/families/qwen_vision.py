"""Vision towers of Qwen2-VL to Qwen3-VL: q, k and v in one layer, RoPE, and a GELU or gated MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, by_size
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """q, k and v one below the other."""
    width = block.attn.dim
    return {"attn.qkv": by_size(q=width, k=width, v=width)}


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers; q <-> k; v -> o; up -> down where the MLP is gated."""
    pairs, head_size = Pairs(block, views), block.attn.head_dim
    q, k, v = (f"attn.qkv.{part}" for part in "qkv")
    pairs.norm("norm1", q, k, v)
    if "mlp.up_proj" in views:
        pairs.norm("norm2", "mlp.gate_proj", "mlp.up_proj")
        pairs.through("mlp.up_proj", "mlp.down_proj")
    else:
        pairs.norm("norm2", "mlp.linear_fc1" if "mlp.linear_fc1" in views else "mlp.fc1")
    pairs.attention(q, k, v, "attn.proj", head_size, head_size)
    return pairs.found


FAMILY = Family(
    model_types=("qwen3_vl_vision", "qwen2_5_vl_vision", "qwen2_vl_vision"),
    scale_groups=scale_groups,
    splits=splits,
)
