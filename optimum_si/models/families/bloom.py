"""BLOOM: LayerNorm, heads of q, k and v in one layer, ALiBi, and a GELU MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, per_head
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """q, k and v of each head one below the other."""
    head_size = config.hidden_size // config.n_head
    return {"self_attention.query_key_value": per_head(config.n_head, q=head_size, k=head_size, v=head_size)}


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers, unless the residual starts behind the norm; q <-> k; v -> o."""
    pairs, head_size = Pairs(block, views), config.hidden_size // config.n_head
    q, k, v = (f"self_attention.query_key_value.{part}" for part in "qkv")
    if not config.apply_residual_connection_post_layernorm:
        pairs.norm("input_layernorm", q, k, v)
        pairs.norm("post_attention_layernorm", "mlp.dense_h_to_4h")
    pairs.attention(q, k, v, "self_attention.dense", head_size)
    return pairs.found


FAMILY = Family(
    model_types=("bloom",),
    scale_groups=scale_groups,
    splits=splits,
    no_shift=("self_attention.query_key_value.k",),
)
