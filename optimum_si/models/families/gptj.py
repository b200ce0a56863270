"""GPT-J and CodeGen: one LayerNorm for attention and MLP, interleaved partial RoPE."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.splits import Split, per_head
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def splits(block: Any, config: Any) -> Mapping[str, Split]:
    """CodeGen: four groups of heads, with queries, values and keys."""
    rows = config.n_embd // 4
    return {"attn.qkv_proj": per_head(4, q=rows, v=rows, k=rows)}


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """The norm -> q, k, v and fc_in; q <-> k by neighboring channels; v -> o."""
    pairs, head_size = Pairs(block, views), config.n_embd // config.n_head
    if "attn.qkv_proj.q" in views:
        q, k, v = (f"attn.qkv_proj.{part}" for part in "qkv")
    else:
        q, k, v = (f"attn.{part}_proj" for part in "qkv")
    pairs.norm("ln_1", q, k, v, "mlp.fc_in")
    pairs.attention(q, k, v, "attn.out_proj", head_size, config.rotary_dim or head_size, interleaved=True)
    pairs.through("mlp.fc_in", "mlp.fc_out", config.activation_function)
    return pairs.found


FAMILY = Family(model_types=("gptj", "codegen"), scale_groups=scale_groups, splits=splits)
