"""GPT-BigCode (StarCoder): LayerNorm, q, k and v in one layer, and a GELU MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, by_size, per_head
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """q, k and v one below the other where all queries share a key; else of each head."""
    heads = config.n_head
    size = config.n_embd // heads
    if config.multi_query:
        return {"attn.c_attn": by_size(q=config.n_embd, k=size, v=size)}
    return {"attn.c_attn": per_head(heads, q=size, k=size, v=size)}


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers; q <-> k; v -> o."""
    pairs = Pairs(block, views)
    q, k, v = (f"attn.c_attn.{part}" for part in "qkv")
    pairs.norm("ln_1", q, k, v)
    pairs.norm("ln_2", "mlp.c_fc")
    pairs.attention(q, k, v, "attn.c_proj", config.n_embd // config.n_head)
    pairs.through("mlp.c_fc", "mlp.c_proj", config.activation_function)
    return pairs.found


FAMILY = Family(model_types=("gpt_bigcode",), scale_groups=scale_groups, splits=splits, no_shift=("attn.c_attn.k",))
