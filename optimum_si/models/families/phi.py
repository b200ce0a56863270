"""Phi: one LayerNorm for attention and MLP, partial RoPE, and a GELU MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs, rotary_size


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """The norm -> q, k, v and fc1; q <-> k unless norms follow them; v -> o."""
    pairs, head_size = Pairs(block, views), block.self_attn.head_dim
    q, k, v = (f"self_attn.{part}_proj" for part in "qkv")
    pairs.norm("input_layernorm", q, k, v, "mlp.fc1")
    rotary = rotary_size(config, head_size)
    pairs.attention(q, k, v, "self_attn.dense", head_size, rotary, mixed=config.qk_layernorm)
    pairs.through("mlp.fc1", "mlp.fc2", config.hidden_act)
    return pairs.found


FAMILY = Family(model_types=("phi",), scale_groups=scale_groups)
