"""Llama, Mistral, Qwen2, Qwen3: pre-norm decoders with RMSNorm, RoPE, grouped queries and a gated MLP."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.invariances import BlockInvariances, ModelEnds, mlp_basis, output_heads, value_head_basis
from optimum_si.models.scale_groups import (
    ScaleGroup,
    linear_to_linear,
    norm_to_linears,
    query_with_key,
    value_to_output,
)
from optimum_si.models.weight_view import WeightView

from .base import Family


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norm -> q, k, v; q <-> k unless a norm follows them; v -> o; norm -> gate, up; up -> down."""
    q, k, v, o = (views[f"self_attn.{name}_proj"] for name in "qkvo")
    gate, up, down = (views[f"mlp.{name}_proj"] for name in ("gate", "up", "down"))
    head_size = block.self_attn.head_dim
    found = [
        norm_to_linears("input_layernorm->q,k,v", block.input_layernorm, [q, k, v]),
        value_to_output("v->o", v, o, head_size),
        norm_to_linears("post_attention_layernorm->gate,up", block.post_attention_layernorm, [gate, up]),
        linear_to_linear("up->down", up, down),
    ]
    # A norm between projection and attention mixes the channels of a head (Qwen3).
    if not hasattr(block.self_attn, "q_norm"):
        found.append(query_with_key("q<->k", q, k, head_size, rotary_size=head_size))
    return found


def invariances(block: Any, views: Mapping[str, WeightView], config: Any) -> BlockInvariances:
    """Both norms with their readers; o and down write. RoPE leaves queries and keys no rotation."""
    q, k, v, o = (views[f"self_attn.{name}_proj"] for name in "qkvo")
    gate, up, down = (views[f"mlp.{name}_proj"] for name in ("gate", "up", "down"))
    return BlockInvariances(
        reads=[(block.input_layernorm, [q, k, v]), (block.post_attention_layernorm, [gate, up])],
        writers=[o, down],
        value_heads=value_head_basis(v, o, block.self_attn.head_dim),
        mlp=mlp_basis([gate, up], down),
    )


def ends(model: Any) -> ModelEnds:
    """Token embeddings; the head behind the final norm."""
    return ModelEnds([model.get_input_embeddings().weight], [(model.base_model.norm, output_heads(model))])


FAMILY = Family(
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    scale_groups=scale_groups,
    new_biases={
        "attention_bias": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        "mlp_bias": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    },
    invariances=invariances,
    ends=ends,
)
