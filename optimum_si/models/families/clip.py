"""CLIP and SigLIP: pre-norm towers of images and text with LayerNorm and a GELU MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers; q <-> k; v -> o."""
    pairs = Pairs(block, views)
    q, k, v, o = (f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "out_proj"))
    pairs.norm("layer_norm1", q, k, v)
    pairs.norm("layer_norm2", "mlp.fc1")
    pairs.attention(q, k, v, o, config.hidden_size // config.num_attention_heads)
    pairs.through("mlp.fc1", "mlp.fc2", config.hidden_act)
    return pairs.found


FAMILY = Family(
    model_types=("clip_text_model", "clip_vision_model", "siglip_text_model", "siglip_vision_model"),
    scale_groups=scale_groups,
    no_shift=("self_attn.k_proj",),
)
