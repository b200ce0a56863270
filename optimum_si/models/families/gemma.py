"""Gemma 1 to 4: norms whose weight is 1 + w, or w; RoPE, grouped queries and a gated MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs, has_any


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms in front -> their readers; q <-> k unless norms follow them; v -> o unless a norm stands between."""
    pairs, attention = Pairs(block, views), block.self_attn
    q, k, v = (f"self_attn.{part}_proj" for part in "qkv")
    sandwiched = hasattr(block, "pre_feedforward_layernorm")
    # Layers that take their keys and values from another have none of their own.
    readers = [name for name in (q, k, v) if name in views]
    if not has_any(block, ["laurel"]):
        pairs.norm("input_layernorm", *readers)
    if not has_any(block, ["router"]):
        in_front = "pre_feedforward_layernorm" if sandwiched else "post_attention_layernorm"
        pairs.norm(in_front, "mlp.gate_proj", "mlp.up_proj")
    mixed = has_any(attention, ["q_norm"])
    if not has_any(attention, ["v_norm"]):
        pairs.attention(q, k, v, "self_attn.o_proj", attention.head_dim, attention.head_dim, mixed=mixed)
    pairs.through("mlp.up_proj", "mlp.down_proj")
    pairs.through("laurel.linear_left", "laurel.linear_right")
    return pairs.found


FAMILY = Family(
    model_types=("gemma", "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text"),
    scale_groups=scale_groups,
)
