"""DistilBERT: a post-norm encoder with a GELU MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """q <-> k; v -> o; through the MLP only where it is homogeneous."""
    pairs = Pairs(block, views)
    q, k, v, o = (f"attention.{part}_lin" for part in ("q", "k", "v", "out"))
    pairs.attention(q, k, v, o, config.dim // config.n_heads)
    pairs.through("ffn.lin1", "ffn.lin2", config.activation)
    return pairs.found


FAMILY = Family(model_types=("distilbert",), scale_groups=scale_groups, no_shift=("attention.k_lin",))
