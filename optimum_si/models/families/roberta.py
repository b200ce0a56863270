"""RoBERTa, ELECTRA and others made like BERT, without what is known of their embeddings and heads."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """q <-> k; v -> o, in cross attention too; through the MLP only where it is homogeneous."""
    pairs = Pairs(block, views)
    head_size = block.attention.self.attention_head_size
    for name, prefix in (("attention", ""), ("crossattention", "crossattention.")):
        q, k, v = (f"{name}.self.{part}" for part in ("query", "key", "value"))
        pairs.attention(q, k, v, f"{name}.output.dense", head_size, name=prefix)
    pairs.through("intermediate.dense", "output.dense", config.hidden_act)
    return pairs.found


FAMILY = Family(
    model_types=("roberta", "electra", "xlm-roberta", "camembert"),
    scale_groups=scale_groups,
    no_shift=("attention.self.key", "crossattention.self.key"),
)
