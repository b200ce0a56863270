"""OPT: LayerNorm decoders with biases and ReLU; OPT-350m puts its norms after the residual sum."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.activations import HOMOGENEOUS_DEGREE
from optimum_si.models.invariances import (
    BlockInvariances,
    ModelEnds,
    mlp_basis,
    output_heads,
    query_head_basis,
    value_head_basis,
)
from optimum_si.models.scale_groups import (
    ScaleGroup,
    linear_to_linear,
    norm_to_linears,
    query_with_key,
    value_to_output,
)
from optimum_si.models.weight_view import WeightView, linear_views

from .base import Family


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
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


def invariances(block: Any, views: Mapping[str, WeightView], config: Any) -> BlockInvariances:
    """Norms in front of their readers, or after the sum (OPT-350m); positions are embedded, so q and k rotate too."""
    q, k, v, o = (views[f"self_attn.{name}"] for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
    fc1, fc2 = views["fc1"], views["fc2"]
    norms = [block.self_attn_layer_norm, block.final_layer_norm]
    first = config.do_layer_norm_before
    return BlockInvariances(
        reads=[(norms[0] if first else None, [q, k, v]), (norms[1] if first else None, [fc1])],
        writers=[o, fc2],
        norms=[] if first else norms,
        value_heads=value_head_basis(v, o, block.self_attn.head_dim),
        query_heads=query_head_basis(q, k, block.self_attn.head_dim),
        mlp=mlp_basis([fc1], fc2),
    )


def ends(model: Any) -> ModelEnds:
    """Embeddings of tokens and positions, narrower tokens through a projection; the head behind the final norm."""
    decoder = model.base_model.decoder
    tables, writers, readers = [decoder.embed_positions.weight], [], output_heads(model)
    if decoder.project_in is None:
        tables.append(decoder.embed_tokens.weight)
    else:
        writers = linear_views(decoder.project_in, "project_in")
    if decoder.project_out is not None and readers:
        readers = linear_views(decoder.project_out, "project_out")
    return ModelEnds(tables, [(decoder.final_layer_norm, readers)], writers)


FAMILY = Family(
    model_types=("opt",),
    scale_groups=scale_groups,
    no_shift=("self_attn.k_proj",),
    invariances=invariances,
    ends=ends,
)
