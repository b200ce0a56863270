"""One block as an optimization problem (Eq. 7), and what has been decided about it so far.

The first part of a :class:`BlockState` is given: the block, its calls and what is to be pruned. The second part is
what stages add, one after the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.algorithms.pruning.method import PruningMethod
from optimum_si.algorithms.pruning.targets import Target
from optimum_si.linalg.moments import Moments
from optimum_si.models.forward.flow import Flow
from optimum_si.models.forward.layer_inputs import LayerInput
from optimum_si.models.forward.stops import Stop, WithoutHooks, hidden_of
from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView

from .calls import Batch, Calls
from .layers import Layer, LayerFit, Scaling, Weights, finished, naming, view_factor


@dataclass(frozen=True, eq=False)
class BlockState:
    """A block on its way through the stages.

    Args:
        index: position of the block in the model.
        name: of the block in the model.
        block: the module, with its dense weights in the dtype of the computation.
        method: pruning method with which choices are made.
        views: weights to prune.
        targets: how much of each goes, by view name.
        row_importance: of each output beside the others of its layer, [d_out], by view name; those left out are alike.
        shiftable: names of views whose bias may change.
        stored: dtype that each parameter is saved in, by its id.
        calls: of the block; None in a state that is not run.
        flow: between its layers; None where no stage asks.
        scale_groups: where learned scales enter.
        layers: the weights to prune with what is known of their inputs, in the order they were reached.
        layer_inputs: activations that these read, in the same order.
        scaling: chosen scales and shifts; None in a run without induction.
        losses: held-out loss of the plain method and of the chosen scaling; None where not measured.
        weights: of every layer, pruned.
        plain_weights: the same without induction; None in a run without it.
        without_held_out: the same masks, fitted without the held-out windows; None where fits did not see them.
        norm_params: refined norms, by name inside the block.
        fits: how each layer was fitted, where layers were fitted one after the other.
        counts_rows: whether ``weights`` meet a target of group "row" in each row, or in each layer as a whole.
        fallbacks: what was done instead of what the recipe says, where that could not be stored, by view name.
        refinement: held-out error of the block's output before and after refinement; None without it.
        outputs: what the block returns for each batch with ``weights``; None where these changed since.
        dense_outputs: what the dense block returned; None where it was not run.
    """

    index: int
    name: str
    block: nn.Module
    method: PruningMethod
    views: Sequence[WeightView] = ()
    targets: Mapping[str, Target] = field(default_factory=dict)
    row_importance: Mapping[str, Tensor] = field(default_factory=dict)
    shiftable: frozenset[str] = frozenset()
    stored: Mapping[int, torch.dtype] = field(default_factory=dict)
    calls: Calls | None = None
    flow: Flow | None = None
    scale_groups: Sequence[ScaleGroup] = ()
    layers: Sequence[Layer] = ()
    layer_inputs: Sequence[LayerInput] = ()
    scaling: Scaling | None = None
    losses: tuple[float, float] | None = None
    weights: Weights = field(default_factory=dict)
    plain_weights: Weights | None = None
    without_held_out: Weights | None = None
    norm_params: Mapping[str, Tensor] = field(default_factory=dict)
    fits: Mapping[str, LayerFit] = field(default_factory=dict)
    counts_rows: bool = True
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    refinement: tuple[float, float] | None = None
    outputs: Sequence[Any] | None = None
    dense_outputs: Sequence[Any] | None = None

    def layer(self, view: WeightView, moments: Moments) -> Layer:
        """One of the weights to prune, once its inputs are known."""
        return Layer(
            view, view.read(), view.read_bias(), moments, self.targets[view.name], view.name in self.shiftable
        )

    def as_stored(self, view: WeightView, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """As they will be read back: what follows is calibrated on what is saved, not on something finer."""
        dtype = self.stored.get(id(view.tensor()), weight.dtype)
        rounded = weight.to(dtype).to(weight.dtype)
        return rounded, None if bias is None else bias.to(dtype).to(bias.dtype)

    def norm_as_stored(self, name: str, value: Tensor) -> Tensor:
        """A parameter of the block as it will be read back, by its name inside the block."""
        return value.to(self.stored.get(id(self.block.get_parameter(name)), value.dtype)).to(value.dtype)

    @cached_property
    def batches(self) -> list[Batch]:
        """Calibration data for what learns on the block's output."""
        assert self.calls is not None and self.dense_outputs is not None, "a stage that learns needs the dense model"
        return self.calls.batches(self.dense_outputs)

    @property
    def training(self) -> Sequence[Batch]:
        """Batches to learn from."""
        assert self.calls is not None
        return [batch for number, batch in enumerate(self.batches) if not self.calls.is_held_out(number)]

    @property
    def validation(self) -> Sequence[Batch]:
        """Batches to choose by; all where none is held out."""
        assert self.calls is not None
        held_out = [batch for number, batch in enumerate(self.batches) if self.calls.is_held_out(number)]
        return held_out or self.batches

    def sample(self, layer: Layer) -> Tensor:
        """Tokens of a layer's input, [n, d_in]."""
        return next(found.sample for found in self.layer_inputs if layer.view in found.views)

    def column_factor(self, scales: Mapping[str, Tensor], layer: Layer) -> Tensor | None:
        """The product of all learned s on a layer's input channels, [d_in]."""
        return view_factor(self.scale_groups, scales, layer.view, "columns")

    def row_factor(self, scales: Mapping[str, Tensor], layer: Layer) -> Tensor | None:
        """What a layer's rows are multiplied by where they are ranked together, [d_out]; None for nothing.

        Their importance, and for methods that compare weights alone q <-> k scales. Rows that other pairs divide by
        their s are compared as they were: s is there for the columns of its consumer, and measured to rank its
        producer's rows badly.
        """
        importance, factor = self.row_importance.get(layer.view.name), None
        if self.method.ranks_rows_together:
            own = [group for group in self.scale_groups if group.rows_only]
            factor = view_factor(own, scales, layer.view, "rows")
        if importance is None or factor is None:
            return factor if importance is None else importance
        return factor * importance.to(factor.dtype)

    def prune(self, scaling: Scaling) -> Weights:
        """Pruned weight and bias of every layer, by view name, under a scaling."""
        return {layer.view.name: self.pruned(layer, scaling) for layer in self.layers}

    def pruned(self, layer: Layer, scaling: Scaling) -> tuple[Tensor, Tensor | None]:
        """Weight [d_out, d_in] and bias of one layer, pruned under a scaling."""
        with naming(layer.view):
            weight = self.method.prune(
                layer.weight,
                layer.scored_moments(scaling.shifted),
                layer.target,
                scale=self.column_factor(scaling.scales, layer),
                row_scale=self.row_factor(scaling.scales, layer),
            )
        return finished(layer, weight, scaling)

    def call(self, stop: Stop, weights: Weights, norm_params: Mapping[str, Tensor] | None = None) -> Any:
        """What the block returns with other weights, which are not written.

        Args:
            stop: the call.
            weights: of every layer.
            norm_params: further parameters of the block, by name inside it.
        """
        inside, bare = len(self.name) + 1, WithoutHooks(self.block)
        overrides: dict[str, Tensor] = dict(norm_params or {})
        for layer in self.layers:
            layer.view.override(overrides, f"{layer.view.owner[inside:]}.", *weights[layer.view.name])
        inner = {f"block.{name}": value for name, value in overrides.items()}
        return stop.call(lambda *args, **kwargs: torch.func.functional_call(bare, inner, args, kwargs))

    def run(self, stop: Stop, weights: Weights, norm_params: Mapping[str, Tensor] | None = None) -> Tensor:
        """The hidden states [batch, tokens, features] that :meth:`call` returns."""
        return hidden_of(self.call(stop, weights, norm_params))

    @torch.no_grad()
    def validation_loss(self, weights: Weights, norm_params: Mapping[str, Tensor] | None = None) -> float:
        """Relative squared error of the block's output on held-out windows."""
        error = norm = 0.0
        for batch in self.validation:
            part, whole = batch.sums(self.run(batch.inputs, weights, norm_params))
            error, norm = error + float(part), norm + float(whole)
        return error / max(norm, 1e-30)
