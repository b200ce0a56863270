"""DeepSeek-V3: latent attention with norms inside it, and a mixture with shared experts."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, per_head
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """Keys and values of each head; those of the latent and the rotated key are not split."""
    heads = config.num_attention_heads
    return {"self_attn.kv_b_proj": per_head(heads, k=config.qk_nope_head_dim, v=config.v_head_dim)}


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms, those inside attention too, -> their readers; v -> o; up -> down."""
    pairs = Pairs(block, views)
    k, v = "self_attn.kv_b_proj.k", "self_attn.kv_b_proj.v"
    first = "self_attn.q_proj" if "self_attn.q_proj" in views else "self_attn.q_a_proj"
    pairs.norm("input_layernorm", first, "self_attn.kv_a_proj_with_mqa")
    pairs.norm("self_attn.q_a_layernorm", "self_attn.q_b_proj")
    pairs.norm("self_attn.kv_a_layernorm", k, v)
    pairs.norm("post_attention_layernorm", "mlp")
    pairs.attention("", k, v, "self_attn.o_proj", config.v_head_dim)
    for name in ("mlp", "mlp.shared_experts"):
        pairs.through(f"{name}.up_proj", f"{name}.down_proj")
    return pairs.found


FAMILY = Family(model_types=("deepseek_v3", "deepseek_v2"), scale_groups=scale_groups, splits=splits)
