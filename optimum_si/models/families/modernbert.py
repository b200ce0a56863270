"""ModernBERT: a pre-norm encoder with LayerNorm, fused projections, RoPE and a gated MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, by_size, halves
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """q, k and v; the half of the MLP that is gated is called up here, as elsewhere."""
    width = config.hidden_size
    return {
        "attn.Wqkv": by_size(q=width, k=width, v=width),
        "mlp.Wi": halves("gate", "up", 2 * config.intermediate_size),
    }


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers (the first block has none in front of attention); q <-> k; v -> o; up -> Wo."""
    pairs, head_size = Pairs(block, views), config.hidden_size // config.num_attention_heads
    q, k, v = (f"attn.Wqkv.{part}" for part in "qkv")
    if hasattr(block.attn_norm, "weight"):
        pairs.norm("attn_norm", q, k, v)
    pairs.norm("mlp_norm", "mlp.Wi.gate", "mlp.Wi.up")
    pairs.attention(q, k, v, "attn.Wo", head_size, head_size)
    pairs.through("mlp.Wi.up", "mlp.Wo")
    return pairs.found


FAMILY = Family(model_types=("modernbert",), scale_groups=scale_groups, splits=splits)
