"""Phi-3 and GLM: RMSNorm, fused projections, RoPE, grouped queries and a gated MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, by_size, halves
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs, head_size_of, rotary_size


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """q, k and v by size (Phi-3); gate and up."""
    head_size = head_size_of(config)
    keys = config.num_key_value_heads * head_size
    found = {"self_attn.qkv_proj": by_size(q=config.num_attention_heads * head_size, k=keys, v=keys)}
    return {**found, "mlp.gate_up_proj": halves("gate", "up", 2 * config.intermediate_size)}


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms in front -> their readers; q <-> k (GLM rotates neighboring channels); v -> o; up -> down."""
    pairs, head_size = Pairs(block, views), head_size_of(config)
    fused = "self_attn.qkv_proj.q" in views
    q, k, v = (f"self_attn.qkv_proj.{part}" if fused else f"self_attn.{part}_proj" for part in "qkv")
    gate, up = "mlp.gate_up_proj.gate", "mlp.gate_up_proj.up"
    pairs.norm("input_layernorm", q, k, v)
    pairs.norm("post_attention_layernorm", gate, up)
    rotary = rotary_size(config, head_size)
    pairs.attention(q, k, v, "self_attn.o_proj", head_size, rotary, interleaved=config.model_type != "phi3")
    pairs.through(up, "mlp.down_proj")
    return pairs.found


FAMILY = Family(model_types=("phi3", "glm", "glm4"), scale_groups=scale_groups, splits=splits)
