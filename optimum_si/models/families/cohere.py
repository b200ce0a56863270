"""Cohere: one LayerNorm for attention and MLP, interleaved RoPE, grouped queries and a gated MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs, has_any


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """The norm -> q, k, v, gate and up; q <-> k unless norms follow them; v -> o; up -> down."""
    pairs, attention = Pairs(block, views), block.self_attn
    q, k, v, o = (f"self_attn.{part}_proj" for part in "qkvo")
    pairs.norm("input_layernorm", q, k, v, "mlp.gate_proj", "mlp.up_proj")
    mixed = has_any(attention, ["q_norm"])
    pairs.attention(q, k, v, o, attention.head_dim, attention.head_dim, interleaved=True, mixed=mixed)
    pairs.through("mlp.up_proj", "mlp.down_proj")
    return pairs.found


FAMILY = Family(model_types=("cohere", "cohere2"), scale_groups=scale_groups)
