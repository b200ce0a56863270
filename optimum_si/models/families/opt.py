"""OPT: LayerNorm decoders with biases and ReLU; OPT-350m puts its norms after the residual sum."""

from collections.abc import Mapping
from typing import Any

from ..channels import Channels, linear_to_linear, norm_to_linears, query_with_key, value_to_output
from ..views import WeightView
from . import HOMOGENEOUS_DEGREE, Family


def channels(block: Any, views: Mapping[str, WeightView], config: Any) -> list[Channels]:
    """Norm -> q, k, v and norm -> fc1 where norms come first; q <-> k; v -> o; fc1 -> fc2 through ReLU."""
    q, k, v, o = (views[f"self_attn.{name}"] for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
    fc1, fc2 = views["fc1"], views["fc2"]
    head_size = block.self_attn.head_dim
    found = [
        value_to_output("v->out", v, o, head_size),
        query_with_key("q<->k", q, k, head_size, rotary_size=None),
    ]
    if config.do_layer_norm_before and config.layer_norm_elementwise_affine:
        found.append(norm_to_linears("self_attn_layer_norm->q,k,v", block.self_attn_layer_norm, [q, k, v]))
        found.append(norm_to_linears("final_layer_norm->fc1", block.final_layer_norm, [fc1]))
    if degree := HOMOGENEOUS_DEGREE.get(config.activation_function):
        found.append(linear_to_linear("fc1->fc2", fc1, fc2, degree))
    return found


FAMILY = Family(model_types=("opt",), channels=channels, no_shift=("self_attn.k_proj",))
