"""OPT: LayerNorm decoders with biases and ReLU; OPT-350m puts its norms after the residual sum."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.invariances import BlockSymmetries, Ends, heads_of, hidden_space, query_space, value_space
from optimum_si.models.scale_groups import Channels, linear_to_linear, norm_to_linears, query_with_key, value_to_output
from optimum_si.models.weight_view import WeightView, linear_views

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


def symmetries(block: Any, views: Mapping[str, WeightView], config: Any) -> BlockSymmetries:
    """Norms in front of their readers, or after the sum (OPT-350m); positions are embedded, so q and k rotate too."""
    q, k, v, o = (views[f"self_attn.{name}"] for name in ("q_proj", "k_proj", "v_proj", "out_proj"))
    fc1, fc2 = views["fc1"], views["fc2"]
    norms = [block.self_attn_layer_norm, block.final_layer_norm]
    first = config.do_layer_norm_before
    return BlockSymmetries(
        reads=[(norms[0] if first else None, [q, k, v]), (norms[1] if first else None, [fc1])],
        writers=[o, fc2],
        norms=[] if first else norms,
        values=value_space(v, o, block.self_attn.head_dim),
        queries=query_space(q, k, block.self_attn.head_dim),
        hidden=hidden_space([fc1], fc2),
    )


def ends(model: Any) -> Ends:
    """Embeddings of tokens and positions, narrower tokens through a projection; the head behind the final norm."""
    decoder = model.base_model.decoder
    tables, writers, readers = [decoder.embed_positions.weight], [], heads_of(model)
    if decoder.project_in is None:
        tables.append(decoder.embed_tokens.weight)
    else:
        writers = linear_views(decoder.project_in, "project_in")
    if decoder.project_out is not None and readers:
        readers = linear_views(decoder.project_out, "project_out")
    return Ends(tables, [(decoder.final_layer_norm, readers)], writers)


FAMILY = Family(
    model_types=("opt",),
    channels=channels,
    no_shift=("self_attn.k_proj",),
    symmetries=symmetries,
    ends=ends,
)
