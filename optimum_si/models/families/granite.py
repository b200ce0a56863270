"""Granite, SmolLM3, StableLM and the text towers of Qwen-VL: made like Llama, with factors or norms of their own."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs, has_any, rotary_size


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers, one for all where attention stands beside the MLP; q <-> k; v -> o; up -> down."""
    pairs, attention = Pairs(block, views), block.self_attn
    q, k, v, o = (f"self_attn.{part}_proj" for part in "qkvo")
    gate, up = "mlp.gate_proj", "mlp.up_proj"
    if getattr(block, "post_attention_layernorm", None) is None:
        pairs.norm("input_layernorm", q, k, v, gate, up)
    else:
        pairs.norm("input_layernorm", q, k, v)
        pairs.norm("post_attention_layernorm", gate, up)
    mixed, rotary = has_any(attention, ["q_norm", "q_layernorm"]), rotary_size(config, attention.head_dim)
    pairs.attention(q, k, v, o, attention.head_dim, rotary, mixed=mixed)
    pairs.through(up, "mlp.down_proj")
    return pairs.found


FAMILY = Family(
    model_types=("granite", "smollm3", "stablelm", "qwen3_vl_text", "qwen2_5_vl_text", "qwen2_vl_text"),
    scale_groups=scale_groups,
)
