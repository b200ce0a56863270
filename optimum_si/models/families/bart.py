"""BART, Marian, mBART and Whisper: encoders and decoders with LayerNorm in front or behind, and a GELU MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


#: Their norms stand in front of attention and MLP.
PRE_NORM = ("mbart", "whisper", "pegasus", "m2m_100", "blenderbot")


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers where they come first; q <-> k; v -> o, in cross attention too; fc1 -> fc2 through ReLU.

    Keys and values of cross attention read the states of the encoder, whose last norm is outside.
    """
    pairs = Pairs(block, views)
    for name, norm in (("self_attn", "self_attn_layer_norm"), ("encoder_attn", "encoder_attn_layer_norm")):
        if hasattr(block, name):
            q, k, v, o = (f"{name}.{part}" for part in ("q_proj", "k_proj", "v_proj", "out_proj"))
            if config.model_type in PRE_NORM:
                pairs.norm(norm, *([q, k, v] if name == "self_attn" else [q]))
            prefix = "" if name == "self_attn" else f"{name}."
            pairs.attention(q, k, v, o, getattr(block, name).head_dim, name=prefix)
    if config.model_type in PRE_NORM:
        pairs.norm("final_layer_norm", "fc1")
    pairs.through("fc1", "fc2", config.activation_function)
    return pairs.found


FAMILY = Family(
    model_types=("bart", "marian", "mbart", "whisper", "pegasus", "m2m_100", "blenderbot"),
    scale_groups=scale_groups,
    no_shift=("self_attn.k_proj", "encoder_attn.k_proj"),
)
