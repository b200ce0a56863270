"""Mixtral, Qwen-MoE, OLMoE and gpt-oss: decoders like Llama with a mixture of experts instead of the MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs, has_any


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers, those of a mixture with all its experts and routers; q <-> k; v -> o; up -> down."""
    pairs, attention = Pairs(block, views), block.self_attn
    q, k, v, o = (f"self_attn.{part}_proj" for part in "qkvo")
    pairs.norm("input_layernorm", q, k, v)
    pairs.norm("post_attention_layernorm", "mlp")
    mixed = has_any(attention, ["q_norm"])
    pairs.attention(q, k, v, o, attention.head_dim, attention.head_dim, mixed=mixed)
    for name in ("mlp", "mlp.shared_expert"):
        pairs.through(f"{name}.up_proj", f"{name}.down_proj")
    return pairs.found


FAMILY = Family(model_types=("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss"), scale_groups=scale_groups)
