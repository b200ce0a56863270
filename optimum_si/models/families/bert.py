"""BERT: a post-norm encoder. Its norms feed the residual too and GELU lets no scale through, so few pairs hold."""

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
from optimum_si.models.scale_groups import ScaleGroup, linear_to_linear, query_with_key, value_to_output
from optimum_si.models.weight_view import WeightView, linear_views

from .base import Family


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
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


def invariances(block: Any, views: Mapping[str, WeightView], config: Any) -> BlockInvariances:
    """Layers read the normed sum itself: its channels can be permuted, not rotated."""
    q, k, v = (views[f"attention.self.{name}"] for name in ("query", "key", "value"))
    output, first, second = views["attention.output.dense"], views["intermediate.dense"], views["output.dense"]
    head_size = block.attention.self.attention_head_size
    return BlockInvariances(
        reads=[(None, [q, k, v]), (None, [first])],
        writers=[output, second],
        norms=[block.attention.output.LayerNorm, block.output.LayerNorm],
        value_heads=value_head_basis(v, output, head_size),
        query_heads=query_head_basis(q, k, head_size),
        mlp=mlp_basis([first], second),
    )


def ends(model: Any) -> ModelEnds | None:
    """Three embeddings and their norm; the pooler, and heads that read tokens, with their tied decoder."""
    embeddings, pooler = model.base_model.embeddings, model.base_model.pooler
    words = embeddings.word_embeddings.weight
    tables = [words, embeddings.position_embeddings.weight, embeddings.token_type_embeddings.weight]
    heads = output_heads(model)
    if not heads:
        return None
    predictions = getattr(getattr(model, "cls", None), "predictions", None)
    readers = [] if pooler is None else linear_views(pooler, "pooler")
    writers, norms = [], [embeddings.LayerNorm]
    if predictions is not None:
        transform = linear_views(predictions.transform, "transform")
        readers += transform
        if predictions.decoder.weight is words:
            # The decoder is the word embedding: what it reads has the same basis.
            writers, norms = transform, [*norms, predictions.transform.LayerNorm]
    elif pooler is None:
        readers += heads
    return ModelEnds(tables, [(None, readers)], writers, norms)


FAMILY = Family(
    model_types=("bert",),
    scale_groups=scale_groups,
    no_shift=("attention.self.key",),
    invariances=invariances,
    ends=ends,
)
