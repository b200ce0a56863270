"""GPT-2: LayerNorm, q, k and v in one Conv1D, and a GELU MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, by_size
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """q, k and v one below the other; in cross attention k and v."""
    width = config.n_embd
    return {
        "attn.c_attn": by_size(q=width, k=width, v=width),
        "crossattention.c_attn": by_size(k=width, v=width),
    }


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers; q <-> k and v -> o without RoPE; through the MLP only where it is homogeneous."""
    pairs, head_size = Pairs(block, views), config.n_embd // config.n_head
    q, k, v = (f"attn.c_attn.{part}" for part in "qkv")
    pairs.norm("ln_1", q, k, v)
    pairs.norm("ln_2", "mlp.c_fc")
    pairs.attention(q, k, v, "attn.c_proj", head_size)
    if hasattr(block, "crossattention"):
        k, v = (f"crossattention.c_attn.{part}" for part in "kv")
        pairs.norm("ln_cross_attn", "crossattention.q_attn")
        pairs.attention("crossattention.q_attn", k, v, "crossattention.c_proj", head_size, name="crossattention.")
    pairs.through("mlp.c_fc", "mlp.c_proj", config.activation_function)
    return pairs.found


FAMILY = Family(model_types=("gpt2",), scale_groups=scale_groups, splits=splits, no_shift=("attn.c_attn.k",))
