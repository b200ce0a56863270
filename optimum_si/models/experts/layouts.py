"""How each class of transformers stores its experts, and the linear layers that share their storage."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.moe import _default_apply_gate

from optimum_si.models.activations import degree_of
from optimum_si.models.splits import alternating, halves

from .expert import BatchedExperts, ChosenExperts, Expert, Experts, RoutedExperts, SharedExperts, SortedExperts


#: From a module to the experts in it, as linear layers; None where it is not of that layout.
Layout = Callable[[Any], Experts | None]


def linear(weight: Tensor, bias: Tensor | None, requires_grad: bool) -> nn.Linear:
    """A layer whose weight [d_out, d_in] and bias are the given tensors: what is written to one is in the other."""
    layer = nn.Linear(1, 1, bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad)
    layer.out_features, layer.in_features = weight.shape
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad)
    return layer


def stacked(module: Any) -> Experts | None:
    """``gate_up_proj`` or ``up_proj``, and ``down_proj``, [experts, ., .]: what most models have, by their flags."""
    down, first = _stack(module, "down_proj"), "gate_up_proj" if hasattr(module, "gate_up_proj") else "up_proj"
    if down is None or _stack(module, first) is None or not hasattr(module, "is_transposed"):
        return None
    gated = first == "gate_up_proj"
    combine = module._apply_gate if gated else module.act_fn
    after = module.post_expert_norm if module.has_post_expert_norm else None
    part = partial(_layer, module, transposed=module.is_transposed)
    degree = degree_of(getattr(module, "act_fn", None))
    if gated:
        rows = getattr(module, first).shape[2 if module.is_transposed else 1]
        split = halves("gate", "up", rows) if module.is_concatenated else alternating("gate", "up")
        # A model's own way to gate may clamp or add.
        splits, scaled = (
            {first: split},
            (f"{first}.up", 1) if type(module)._apply_gate is _default_apply_gate else None,
        )
    else:
        splits, scaled = {}, None if degree is None else (first, degree)
    experts = [
        Expert({first: part(first, number)}, combine, ("down_proj", part("down_proj", number)), after, splits, scaled)
        for number in range(len(down))
    ]
    return RoutedExperts(_numbered(experts), module)


def batched(module: Any) -> Experts | None:
    """Llama 4: transposed, gate then up, called with a copy of all tokens for each expert."""
    down = _stack(module, "down_proj")
    if down is None or _stack(module, "gate_up_proj") is None or hasattr(module, "is_transposed"):
        return None
    if len(signature(module.forward).parameters) != 1:  # called with a choice of experts, in a way of its own
        return None

    def combine(gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        gated: Tensor = up * module.act_fn(gate)
        return gated

    part = partial(_layer, module, transposed=True)
    splits = {"gate_up_proj": halves("gate", "up", module.gate_up_proj.shape[2])}
    experts = [
        Expert(
            {"gate_up_proj": part("gate_up_proj", number)},
            combine,
            ("down_proj", part("down_proj", number)),
            splits=splits,
            scaled=("gate_up_proj.up", 1),
        )
        for number in range(len(down))
    ]
    return BatchedExperts(_numbered(experts), module)


def unflagged(module: Any) -> Experts | None:
    """As :func:`stacked`, of classes that do not say their flags: these two, whose forward pass was read.

    Experts beyond those of ``down_proj`` give the token back where the module has an ``identity_expert``.
    """
    if not _is_one_of(module, "Step3p7Experts", "LongcatFlashExperts"):
        return None
    down, fused = _stack(module, "down_proj"), _stack(module, "gate_up_proj")
    if down is None or fused is None:
        return None
    gates = hasattr(module, "_apply_gate")

    def combine(gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        gated: Tensor = module._apply_gate(gate_up) if gates else module.act_fn(gate) * up
        return gated

    part = partial(_layer, module, transposed=False)
    splits = {"gate_up_proj": halves("gate", "up", fused.shape[1])}
    experts = _numbered(
        [
            Expert(
                {"gate_up_proj": part("gate_up_proj", number)},
                combine,
                ("down_proj", part("down_proj", number)),
                splits=splits,
                scaled=None if gates else ("gate_up_proj.up", 1),
            )
            for number in range(len(down))
        ]
    )
    return _OrIdentity(experts, module) if hasattr(module, "identity_expert") else RoutedExperts(experts, module)


def shared(module: Any) -> Experts | None:
    """Inkling's shared experts: all read every token, whose factor for each goes into its ``down_proj``."""
    if not _is_one_of(module, "InklingSharedExperts"):
        return None
    names = ("gate_proj", "up_proj", "down_proj")

    def combine(gate: Tensor, up: Tensor) -> Tensor:
        gated: Tensor = module.act_fn(gate) * up
        return gated

    part = partial(_layer, module, transposed=False)
    experts = [
        Expert(
            {name: part(name, number) for name in names[:2]},
            combine,
            ("down_proj", part("down_proj", number)),
            scaled=("up_proj", 1),
        )
        for number in range(len(module.down_proj))
    ]
    return SharedExperts(_numbered(experts), module)


def sorted_by_expert(module: Any) -> Experts | None:
    """JetMoE: one matrix for each expert, [experts, d_out, d_in], of tokens that come sorted."""
    weight = _stack(module, "weight")
    if weight is None or not type(module).__name__.endswith("ParallelExperts"):
        return None
    layers = [_layer(module, "weight", number, transposed=False) for number in range(len(weight))]
    return SortedExperts(_numbered(layers), module)


def flattened(module: Any) -> Experts | None:
    """DBRX: ``w1``, ``v1`` and ``w2`` of all experts below each other, [experts * intermediate, hidden]."""
    inner = getattr(module, "mlp", None)
    if inner is None or not all(isinstance(getattr(inner, name, None), nn.Parameter) for name in ("w1", "v1", "w2")):
        return None
    size = inner.ffn_hidden_size

    def part(name: str, number: int) -> nn.Linear:
        whole = getattr(inner, name)
        rows = whole.data[number * size : (number + 1) * size]
        return linear(rows.T if name == "w2" else rows, None, whole.requires_grad)

    def combine(gate: Tensor, up: Tensor) -> Tensor:
        gated: Tensor = inner.activation_fn(gate) * up
        return gated

    experts = [
        Expert(
            {name: part(name, number) for name in ("w1", "v1")}, combine, ("w2", part("w2", number)), scaled=("v1", 1)
        )
        for number in range(module.num_experts)
    ]
    return RoutedExperts(_numbered(experts), module)


def listed(module: Any) -> Experts | None:
    """Switch and NLLB: a module for each expert, linear already."""
    if not isinstance(module, nn.ModuleDict) or not hasattr(module, "num_experts"):
        return None
    experts = {name: expert for name, expert in module.items() if name.startswith("expert_")}
    dropout = getattr(module, "moe_token_dropout", None)
    return ChosenExperts(experts, module) if dropout is None else _Dampened(experts, module, 1 - dropout)


class _Dampened(RoutedExperts):
    """NLLB: outside training, outputs are as small as dropout of whole tokens makes them on average.

    Tokens come with a 0 or 1 for each expert, which the model takes for the numbers of experts; that is followed.
    """

    def __init__(self, experts: dict[str, nn.Module], original: nn.Module, factor: float) -> None:
        super().__init__(experts, original)
        self._factor = factor

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        return super().forward(hidden_states, top_k_index, top_k_weights * self._factor)


class _OrIdentity(RoutedExperts):
    """LongCat-Flash: a token may be sent to an expert that gives it back, numbered after all others."""

    def __init__(self, experts: dict[str, nn.Module], original: Any) -> None:
        super().__init__(experts, original)
        # Weights that nothing reads: here to be counted.
        self.unread = nn.Parameter(original.gate_up_proj.data[len(experts) :], requires_grad=False)

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        kept = torch.where(top_k_index >= self.num_experts, top_k_weights, 0).sum(dim=-1, keepdim=True)
        given_back = (hidden_states * kept.reshape(*hidden_states.shape[:-1], 1)).to(hidden_states.dtype)
        return super().forward(hidden_states, top_k_index, top_k_weights) + given_back


#: Tried in this order.
LAYOUTS: tuple[Layout, ...] = (stacked, batched, unflagged, shared, sorted_by_expert, flattened, listed)


def _is_one_of(module: nn.Module, *names: str) -> bool:
    """Whether a module is of one of these classes of transformers: others of the same look may compute otherwise."""
    kind = type(module)
    return kind.__name__ in names and kind.__module__.startswith("transformers.models.")


def _numbered(experts: list[Any]) -> dict[str, nn.Module]:
    return {str(number): expert for number, expert in enumerate(experts)}


def _stack(module: Any, name: str) -> nn.Parameter | None:
    """A parameter [experts, ., .] of a module, or None."""
    value = getattr(module, name, None)
    return value if isinstance(value, nn.Parameter) and value.ndim == 3 else None


def _layer(module: Any, name: str, number: int, transposed: bool) -> nn.Linear:
    """The matrix of one expert, with its bias if it has one."""
    whole, bias = getattr(module, name), getattr(module, f"{name}_bias", None)
    matrix = whole.data[number]
    own_bias = bias.data[number] if isinstance(bias, nn.Parameter) else None
    return linear(matrix.T if transposed else matrix, own_bias, whole.requires_grad)
