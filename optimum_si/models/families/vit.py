"""ViT and DINOv2: pre-norm encoders of images with LayerNorm, and a GELU or gated MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers; q <-> k; v -> o; up -> down where it is gated."""
    pairs, head_size = Pairs(block, views), config.hidden_size // config.num_attention_heads
    q, k, v, o = (f"attention.{part}_proj" for part in "qkvo")
    before, after = ("norm1", "norm2") if hasattr(block, "norm1") else ("layernorm_before", "layernorm_after")
    pairs.norm(before, q, k, v)
    pairs.attention(q, k, v, o, head_size)
    if "mlp.fc1" in views:
        pairs.norm(after, "mlp.fc1")
        pairs.through("mlp.fc1", "mlp.fc2", config.hidden_act)
    else:
        pairs.norm(after, "mlp.gate_proj", "mlp.up_proj")
        pairs.through("mlp.up_proj", "mlp.down_proj")
    return pairs.found


FAMILY = Family(model_types=("vit", "dinov2"), scale_groups=scale_groups, no_shift=("attention.k_proj",))
