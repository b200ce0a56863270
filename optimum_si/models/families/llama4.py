"""Llama 4: interleaved RoPE with a norm of queries and keys, experts that read weighted tokens."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs, has_any


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers; q <-> k where no norm follows them; v -> o; up -> down, in the shared expert too."""
    pairs, attention = Pairs(block, views), block.self_attn
    q, k, v, o = (f"self_attn.{part}_proj" for part in "qkvo")
    pairs.norm("input_layernorm", q, k, v)
    pairs.norm("post_attention_layernorm", "feed_forward")
    mixed = has_any(attention, ["qk_norm"])
    pairs.attention(q, k, v, o, attention.head_dim, attention.head_dim, interleaved=True, mixed=mixed)
    for name in ("feed_forward", "feed_forward.shared_expert"):
        pairs.through(f"{name}.up_proj", f"{name}.down_proj")
    return pairs.found


FAMILY = Family(model_types=("llama4_text",), scale_groups=scale_groups)
