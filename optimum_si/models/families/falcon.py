"""Falcon: LayerNorm, q, k and v in one layer of three layouts, RoPE or ALiBi, attention beside the MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, per_head
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """For each group of heads its queries, key and value; one group in all where all queries share them."""
    head_size, heads = config.hidden_size // config.num_attention_heads, config.num_attention_heads
    groups = config.num_kv_heads if config.new_decoder_architecture else 1 if config.multi_query else heads
    parts = per_head(groups, q=heads // groups * head_size, k=head_size, v=head_size)
    return {"self_attention.query_key_value": parts}


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """One norm for attention and MLP, or one for each; q <-> k; v -> o."""
    pairs, head_size = Pairs(block, views), config.hidden_size // config.num_attention_heads
    q, k, v = (f"self_attention.query_key_value.{part}" for part in "qkv")
    first = "mlp.dense_h_to_4h"
    if hasattr(block, "ln_attn"):
        pairs.norm("ln_attn", q, k, v)
        pairs.norm("ln_mlp", first)
    elif config.parallel_attn:
        pairs.norm("input_layernorm", q, k, v, first)
    else:
        pairs.norm("input_layernorm", q, k, v)
        pairs.norm("post_attention_layernorm", first)
    rotary_size = None if config.alibi else head_size
    pairs.attention(q, k, v, "self_attention.dense", head_size, rotary_size)
    pairs.through(first, "mlp.dense_4h_to_h", config.activation)
    return pairs.found


FAMILY = Family(model_types=("falcon",), scale_groups=scale_groups, splits=splits)
