"""A block decided layer by layer: each when all batches have come to it, on what those before it give now."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import Layer, LayerFit, Weights, naming
from optimum_si.algorithms.soundness import fault, with_exact_zeros
from optimum_si.errors import NumericalError
from optimum_si.models.forward.layer_inputs import LayerInput
from optimum_si.models.forward.layer_walk import LayerWalk, Reached
from optimum_si.models.weight_view import WeightView

from .inputs import PairedInput, paired_input, single_input


#: Factors of the damping with which a layer is decided, one after the other, until what comes of it can be stored.
CAUTIONS = (1.0, 10.0, 100.0)


@dataclass(frozen=True, eq=False)
class Decision:
    """What becomes of a layer.

    Args:
        weight: [d_out, d_in].
        bias: [d_out], or None.
        plain: weight and bias of the plain method, for reports; None where that was not asked for.
        without_held_out: the same mask fitted without the held-out windows; None where fits did not see them.
        fit: how it was fitted.
        fallback: what was done instead of what the recipe says, since that could not be stored; "" for nothing.
    """

    weight: Tensor
    bias: Tensor | None
    plain: tuple[Tensor, Tensor | None] | None = None
    without_held_out: tuple[Tensor, Tensor | None] | None = None
    fit: LayerFit | None = None
    fallback: str = ""


#: From a layer, its paired input (None where it is not wanted) and a factor of the damping to what becomes of it.
Decide = Callable[[Layer, PairedInput | None, float], Decision]


@dataclass(eq=False)
class _Noted:
    """What adds up on the way through a block."""

    layers: list[Layer] = field(default_factory=list)
    inputs: list[LayerInput] = field(default_factory=list)
    plain: Weights = field(default_factory=dict)
    without_held_out: Weights = field(default_factory=dict)
    fits: dict[str, LayerFit] = field(default_factory=dict)
    fallbacks: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def decide_in_sequence(
    state: BlockState,
    decide: Decide,
    counts_rows: bool,
    gram: bool,
    paired: bool,
) -> BlockState:
    """The block with the weights that ``decide`` gives, in one forward pass of each model.

    Args:
        state: the block; its runs wait before it.
        decide: what becomes of a layer.
        counts_rows: whether that meets a target of group "row" in each row, or in the layer as a whole.
        gram: collect full Gram matrices where inputs are not paired.
        paired: look at inputs in both models.

    Returns:
        The state with layers, inputs, weights and outputs. Layers that no token comes to, such as experts that are
        called with none, stay dense and are left out of it.

    Raises:
        NumericalError: names the layer.
    """
    calls = state.calls
    assert calls is not None, "a block is decided on its calls"
    stream = state.flow.stream if paired and state.flow is not None else None
    walk = LayerWalk(state.block, state.views, calls.pruned, calls.dense, stream, calls.further)
    noted = _Noted()
    for reached in walk:
        if not any(call.values.numel() for call in reached.calls):
            walk.weights.update({view.name: (view.read(), view.read_bias()) for view in reached.views})
            continue
        both: PairedInput | None = None
        if paired:
            both, sample = paired_input(reached, calls)
            moments = both.moments
        else:
            moments, sample = single_input(reached, calls, gram)
        _note_input(noted, reached, LayerInput([], moments, sample))
        for view in reached.views:
            layer = state.layer(view, moments)
            with naming(view):
                decision = _sound(state, layer, both, decide, counts_rows)
            noted.layers.append(layer)
            walk.weights[view.name] = decision.weight, decision.bias
            _note(noted, view, decision)
    return replace(
        state,
        layers=noted.layers,
        layer_inputs=noted.inputs,
        weights={layer.view.name: walk.weights[layer.view.name] for layer in noted.layers},
        plain_weights=noted.plain or state.plain_weights,
        without_held_out=noted.without_held_out or None,
        fits=noted.fits,
        counts_rows=counts_rows,
        fallbacks=noted.fallbacks,
        outputs=walk.outputs,
        dense_outputs=walk.dense_outputs or state.dense_outputs,
    )


def _sound(state: BlockState, layer: Layer, both: PairedInput | None, decide: Decide, counts_rows: bool) -> Decision:
    """The first decision, each more cautious than the last, whose weights as stored are finite and have the zeros."""
    for caution in CAUTIONS:
        try:
            decision = decide(layer, both, caution)
        except (NumericalError, torch.linalg.LinAlgError):
            continue
        weight, bias = state.as_stored(layer.view, decision.weight, decision.bias)
        weight = with_exact_zeros(layer.target, layer.weight, weight, counts_rows)
        if not fault(layer.target, layer.weight, weight, bias, counts_rows):
            fallback = "" if caution == 1 else f"{caution:g} times the damping"
            return replace(decision, weight=weight, bias=bias, fallback=fallback)
    return Decision(_as_it_was(layer), layer.bias, fallback="kept weights as they were")


def _as_it_was(layer: Layer) -> Tensor:
    """Dense weights in the mask of Wanda's score, in fp64: what the checkpoint held can be stored again."""
    score = layer.weight.double().abs() * layer.moments.diagonal.sqrt()
    return layer.weight * layer.target.keep(score.masked_fill(layer.weight == 0, -1))


def _note_input(noted: _Noted, reached: Reached, found: LayerInput) -> None:
    """One entry for each activation, which lists all its readers."""
    known = next((entry for entry in noted.inputs if entry.moments is found.moments), None)
    if known is None:
        noted.inputs.append(found)
        known = found
    known.views.extend(reached.views)


def _note(noted: _Noted, view: WeightView, decision: Decision) -> None:
    if decision.plain is not None:
        noted.plain[view.name] = decision.plain
    if decision.without_held_out is not None:
        noted.without_held_out[view.name] = decision.without_held_out
    if decision.fit is not None:
        noted.fits[view.name] = decision.fit
    if decision.fallback:
        noted.fallbacks[view.name] = decision.fallback
