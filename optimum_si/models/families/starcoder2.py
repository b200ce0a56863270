"""StarCoder2: LayerNorm, RoPE, grouped queries and a GELU MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers; q <-> k; v -> o. GELU lets no scale through to c_proj."""
    pairs, head_size = Pairs(block, views), block.self_attn.head_dim
    q, k, v, o = (f"self_attn.{part}_proj" for part in "qkvo")
    pairs.norm("input_layernorm", q, k, v)
    pairs.norm("post_attention_layernorm", "mlp.c_fc")
    pairs.attention(q, k, v, o, head_size, head_size)
    pairs.through("mlp.c_fc", "mlp.c_proj", config.hidden_act)
    return pairs.found


FAMILY = Family(model_types=("starcoder2",), scale_groups=scale_groups)
