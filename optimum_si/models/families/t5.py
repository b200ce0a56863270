"""T5 and its relatives: pre-norm encoders and decoders with RMSNorm and positions as biases."""

from collections.abc import Mapping
from typing import Any

from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .base import Family
from .pairs import Pairs


def scale_groups(block: Any, views: Mapping[str, WeightView], config: Any) -> list[ScaleGroup]:
    """Norms -> their readers; q <-> k; v -> o; through ReLU, or the half that is gated.

    Keys and values of cross attention read the states of the encoder, behind its last norm, which is outside. Those
    of LongT5's global attention also read sums of what its norm gives, behind a norm of their own.
    """
    pairs, last = Pairs(block, views), f"layer.{len(block.layer) - 1}"
    dense = f"{last}.DenseReluDense"
    for number, layer in enumerate(block.layer[:-1]):
        # SelfAttention or EncDecAttention; LocalSelfAttention or TransientGlobalSelfAttention in LongT5's encoder.
        name = next(name for name, _ in layer.named_children() if name.endswith("Attention"))
        q, k, v, o = (f"layer.{number}.{name}.{part}" for part in "qkvo")
        if name != "TransientGlobalSelfAttention":
            pairs.norm(f"layer.{number}.layer_norm", *([q] if name == "EncDecAttention" else [q, k, v]))
        pairs.attention(q, k, v, o, config.d_kv, name=f"{name}.")
    if f"{dense}.wi_0" in views:
        pairs.norm(f"{last}.layer_norm", f"{dense}.wi_0", f"{dense}.wi_1")
        pairs.through(f"{dense}.wi_1", f"{dense}.wo")
    else:
        pairs.norm(f"{last}.layer_norm", f"{dense}.wi")
        pairs.through(f"{dense}.wi", f"{dense}.wo", config.dense_act_fn)
    return pairs.found


FAMILY = Family(model_types=("t5", "mt5", "umt5", "longt5"), scale_groups=scale_groups)
