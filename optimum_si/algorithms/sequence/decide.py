"""A block decided layer by layer: each when all batches have come to it, on what those before it give now."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import Layer, LayerFit, Weights, naming
from optimum_si.models.forward.layer_inputs import LayerInput
from optimum_si.models.forward.layer_walk import LayerWalk, Reached
from optimum_si.models.weight_view import WeightView

from .inputs import PairedInput, paired_input, single_input


@dataclass(frozen=True, eq=False)
class Decision:
    """What becomes of a layer.

    Args:
        weight: [d_out, d_in].
        bias: [d_out], or None.
        plain: weight and bias of the plain method, for reports; None where that was not asked for.
        without_held_out: the same mask fitted without the held-out windows; None where fits did not see them.
        fit: how it was fitted.
    """

    weight: Tensor
    bias: Tensor | None
    plain: tuple[Tensor, Tensor | None] | None = None
    without_held_out: tuple[Tensor, Tensor | None] | None = None
    fit: LayerFit | None = None


@dataclass(eq=False)
class _Noted:
    """What adds up on the way through a block."""

    layers: list[Layer] = field(default_factory=list)
    inputs: list[LayerInput] = field(default_factory=list)
    plain: Weights = field(default_factory=dict)
    without_held_out: Weights = field(default_factory=dict)
    fits: dict[str, LayerFit] = field(default_factory=dict)


@torch.no_grad()
def decide_in_sequence(
    state: BlockState,
    decide: Callable[[Layer, PairedInput | None], Decision],
    gram: bool,
    paired: bool,
) -> BlockState:
    """The block with the weights that ``decide`` gives, in one forward pass of each model.

    Args:
        state: the block; its runs wait before it.
        decide: from a layer and its paired input (None where it is not wanted) to its weights.
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
    walk = LayerWalk(state.block, state.views, calls.pruned, calls.dense, stream)
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
                decision = decide(layer, both)
            noted.layers.append(layer)
            walk.weights[view.name] = state.as_stored(view, decision.weight, decision.bias)
            _note(noted, view, decision)
    return replace(
        state,
        layers=noted.layers,
        layer_inputs=noted.inputs,
        weights={layer.view.name: walk.weights[layer.view.name] for layer in noted.layers},
        plain_weights=noted.plain or state.plain_weights,
        without_held_out=noted.without_held_out or None,
        fits=noted.fits,
        outputs=walk.outputs,
        dense_outputs=walk.dense_outputs or state.dense_outputs,
    )


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
