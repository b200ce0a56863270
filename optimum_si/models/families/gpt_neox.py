"""GPT-NeoX and Pythia: LayerNorm, heads of q, k and v in one layer, partial RoPE, attention beside the MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, per_head
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs, rotary_size


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """q, k and v of each head one below the other."""
    head_size = config.hidden_size // config.num_attention_heads
    return {"attention.query_key_value": per_head(config.num_attention_heads, q=head_size, k=head_size, v=head_size)}


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Each norm -> its readers, whether they stand beside each other or not; q <-> k; v -> o."""
    pairs, head_size = Pairs(block, views), config.hidden_size // config.num_attention_heads
    q, k, v = (f"attention.query_key_value.{part}" for part in "qkv")
    pairs.norm("input_layernorm", q, k, v)
    pairs.norm("post_attention_layernorm", "mlp.dense_h_to_4h")
    pairs.attention(q, k, v, "attention.dense", head_size, rotary_size(config, head_size))
    pairs.through("mlp.dense_h_to_4h", "mlp.dense_4h_to_h", config.hidden_act)
    return pairs.found


FAMILY = Family(model_types=("gpt_neox",), scale_groups=scale_groups, splits=splits)
