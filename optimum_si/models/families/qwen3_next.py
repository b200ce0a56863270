"""Qwen3-Next: three of four blocks with linear attention, gated attention in the others, experts in all."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, per_head
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """Of each head, queries and what its output is gated with."""
    return {"self_attn.q_proj": per_head(config.num_attention_heads, q=config.head_dim, gate=config.head_dim)}


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms (1 + w) -> their readers; v -> o through the gate, in blocks with attention; up -> down."""
    pairs = Pairs(block, views)
    q, gate = "self_attn.q_proj.q", "self_attn.q_proj.gate"
    k, v, o = (f"self_attn.{part}_proj" for part in "kvo")
    pairs.norm("input_layernorm", q, gate, k, v)
    pairs.norm("input_layernorm", "linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba")
    pairs.norm("post_attention_layernorm", "mlp")
    pairs.attention(q, k, v, o, config.head_dim, mixed=True)
    for name in ("mlp", "mlp.shared_expert"):
        pairs.through(f"{name}.up_proj", f"{name}.down_proj")
    return pairs.found


FAMILY = Family(model_types=("qwen3_next",), scale_groups=scale_groups, splits=splits)
