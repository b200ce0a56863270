"""BERT: a post-norm encoder. Its norms feed the residual too and GELU lets no scale through, so few pairs hold."""

from collections.abc import Mapping
from typing import Any

from ..channels import Channels, linear_to_linear, query_with_key, value_to_output
from ..views import WeightView
from . import HOMOGENEOUS_DEGREE, Family


def channels(block: Any, views: Mapping[str, WeightView], config: Any) -> list[Channels]:
    """q <-> k; v -> o; intermediate -> output only where the activation is homogeneous (not GELU)."""
    q, k, v = (views[f"attention.self.{name}"] for name in ("query", "key", "value"))
    head_size = block.attention.self.attention_head_size
    found = [
        value_to_output("value->output", v, views["attention.output.dense"], head_size),
        query_with_key("query<->key", q, k, head_size, rotary_size=None),
    ]
    if degree := HOMOGENEOUS_DEGREE.get(config.hidden_act):
        found.append(
            linear_to_linear("intermediate->output", views["intermediate.dense"], views["output.dense"], degree)
        )
    return found


FAMILY = Family(model_types=("bert",), channels=channels, no_shift=("attention.self.key",))
