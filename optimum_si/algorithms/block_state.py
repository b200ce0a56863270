"""One block as an optimization problem (Eq. 7), and what has been decided about it so far.

The first part of a :class:`BlockState` is observed: the block's weights, their inputs, and what the dense block would
answer. The second part is what stages add, one after the other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from optimum_si.algorithms.pruning.method import PruningMethod
from optimum_si.algorithms.pruning.targets import Target
from optimum_si.errors import NumericalError
from optimum_si.linalg.moments import Moments
from optimum_si.models.forward.layer_inputs import LayerInput
from optimum_si.models.forward.stops import Stop, WithoutHooks, hidden_of
from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView


#: Weight [d_out, d_in] and bias [d_out] (or None) of each layer, by view name.
Weights = dict[str, tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, eq=False)
class Layer:
    """One weight to prune.

    Args:
        view: where it lives.
        weight: dense, [d_out, d_in], in the dtype of the computation.
        bias: dense, [d_out], or None.
        moments: of its inputs, as the pruned model gives them.
        target: how much goes.
        shift: True where the shift may change the bias.
    """

    view: WeightView
    weight: Tensor
    bias: Tensor | None
    moments: Moments
    target: Target
    shift: bool

    @property
    def mean(self) -> Tensor:
        """Mean of the inputs, [d_in], in the dtype of the weight."""
        return self.moments.mean.to(self.weight.dtype)

    def scored_moments(self, shifted: bool) -> Moments:
        """Moments to score with: centered where the shift takes the mean away, H - mu mu^T."""
        return self.moments.transformed(shift=self.moments.mean) if shifted and self.shift else self.moments


@dataclass(frozen=True, eq=False)
class Scaling:
    """Scales and shifts of one block; without any of them the block is pruned as it is.

    Args:
        scales: s by the name of its scale group; groups that are left out keep s = 1.
        shifted: whether biases take up the shift.
        bias_change: learned change of each shifted bias beyond mean compensation, by view name, [d_out].
    """

    scales: Mapping[str, Tensor] = field(default_factory=dict)
    shifted: bool = False
    bias_change: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def name(self) -> Literal["induced", "shift", "plain"]:
        """What it is called in reports."""
        return "induced" if self.scales else "shift" if self.shifted else "plain"

    def part_of_the_way(self, fraction: float) -> "Scaling":
        """The scaling at a fraction of its distance from s = 1 (in log s) and from mean compensation."""
        scales = {name: scale**fraction for name, scale in self.scales.items()}
        return Scaling(scales, self.shifted, {name: fraction * change for name, change in self.bias_change.items()})


#: No scale, and biases as they are.
PLAIN = Scaling()


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of calibration data at one block.

    Args:
        inputs: the block's call in the pruned model.
        dense_inputs: the block's call in the dense model.
        target: outputs of the dense block in the dense model, [batch, tokens, features].
        weight: what the error of each token counts, broadcasts against ``target``; None counts all alike.
    """

    inputs: Stop
    dense_inputs: Stop
    target: Tensor
    weight: Tensor | None = None

    def sums(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted squared error of ``output`` and squared norm of the target, summed over real tokens."""
        error, target = (output - self.target).square(), self.target.square()
        if self.weight is not None:
            error, target = error * self.weight, target * self.weight
        mask = self.inputs.mask
        if mask is not None:
            error, target = error[mask], target[mask]
        return error.sum(), target.sum()

    def loss(self, output: Tensor) -> Tensor:
        """Relative squared error of ``output`` (Eq. 7)."""
        error, norm = self.sums(output)
        return error / norm.clamp_min(1e-30)

    def normalized(self) -> "Batch":
        """The batch with weights that bring the target of every token to the same norm.

        What follows a block normalizes each token, so its error matters relative to it. Tokens of huge norm
        (attention sinks) would otherwise be all that a plain MSE sees.
        """
        return replace(self, weight=1 / self.target.square().mean(dim=-1, keepdim=True).clamp_min(1e-12))


@dataclass(frozen=True)
class LayerFit:
    """How one layer was fitted.

    Args:
        repair: fraction of the dense model's output, on its own inputs, in the target.
        damping: of the fit, as a fraction of the mean of H's diagonal.
    """

    repair: float
    damping: float


@dataclass(frozen=True, eq=False)
class BlockState:
    """A block on its way through the stages.

    Args:
        index: position of the block in the model.
        name: of the block in the model.
        block: the module, with its dense weights in the dtype of the computation.
        method: pruning method with which choices are made.
        layers: weights to prune.
        layer_inputs: activations that these read, in forward order.
        scale_groups: where learned scales enter.
        training: calibration data to learn from; empty where no stage asks for the dense model's outputs.
        validation: held-out calibration data to choose by.
        model_loss: held-out loss of the whole model with other weights in this block; None chooses by the block.
        scaling: chosen scales and shifts; None in a run without induction.
        losses: held-out loss of the plain method and of the chosen scaling; None where not measured.
        weights: of every layer, pruned.
        plain_weights: the same without induction; None in a run without it.
        without_held_out: the same masks, fitted without the held-out windows; None where fits did not see them.
        norm_params: refined norms, by name inside the block.
        fits: how each layer was fitted, where layers were fitted one after the other.
        refinement: held-out error of the block's output before and after refinement; None without it.
    """

    index: int
    name: str
    block: nn.Module
    method: PruningMethod
    layers: Sequence[Layer]
    layer_inputs: Sequence[LayerInput] = ()
    scale_groups: Sequence[ScaleGroup] = ()
    training: Sequence[Batch] = ()
    validation: Sequence[Batch] = ()
    model_loss: Callable[["BlockState", Weights], float] | None = None
    scaling: Scaling | None = None
    losses: tuple[float, float] | None = None
    weights: Weights = field(default_factory=dict)
    plain_weights: Weights | None = None
    without_held_out: Weights | None = None
    norm_params: Mapping[str, Tensor] = field(default_factory=dict)
    fits: Mapping[str, LayerFit] = field(default_factory=dict)
    refinement: tuple[float, float] | None = None

    def sample(self, layer: Layer) -> Tensor:
        """Tokens of a layer's input, [n, d_in]."""
        return next(found.sample for found in self.layer_inputs if layer.view in found.views)

    def column_factor(self, scales: Mapping[str, Tensor], layer: Layer) -> Tensor | None:
        """The product of all learned s on a layer's input channels, [d_in]."""
        return view_factor(self.scale_groups, scales, layer.view, "columns")

    def row_factor(self, scales: Mapping[str, Tensor], layer: Layer) -> Tensor | None:
        """What q <-> k scales multiply a layer's rows by, for methods that rank rows together.

        Rows that other pairs divide by their s are compared as they were: s is there for the columns of its consumer,
        and measured to rank its producer's rows badly.
        """
        if not self.method.ranks_rows_together:
            return None
        own = [group for group in self.scale_groups if group.rows_only]
        return view_factor(own, scales, layer.view, "rows")

    def prune(self, scaling: Scaling) -> Weights:
        """Pruned weight and bias of every layer, by view name, under a scaling."""
        return {layer.view.name: self._prune_layer(scaling, layer) for layer in self.layers}

    def _prune_layer(self, scaling: Scaling, layer: Layer) -> tuple[Tensor, Tensor | None]:
        with naming(layer.view):
            weight = self.method.prune(
                layer.weight,
                layer.scored_moments(scaling.shifted),
                layer.target,
                scale=self.column_factor(scaling.scales, layer),
                row_scale=self.row_factor(scaling.scales, layer),
            )
        if not (scaling.shifted and layer.shift):
            return weight, layer.bias
        return weight, shifted_bias(layer, weight, scaling.bias_change.get(layer.view.name))

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
            view, (weight, bias) = layer.view, weights[layer.view.name]
            prefix = view.name[inside:]
            name = f"{prefix}.{view.parameter}"
            overrides[name] = view.embed(overrides.get(name, view.tensor().detach()), weight)
            if bias is not None:
                whole = view.bias_tensor()
                assert whole is not None
                name = f"{prefix}.{view.bias}"
                overrides[name] = view.embed_bias(overrides.get(name, whole.detach()), bias)
        inner = {f"block.{name}": value for name, value in overrides.items()}
        return stop.call(lambda *args, **kwargs: torch.func.functional_call(bare, inner, args, kwargs))

    def run(self, stop: Stop, weights: Weights, norm_params: Mapping[str, Tensor] | None = None) -> Tensor:
        """The hidden states [batch, tokens, features] that :meth:`call` returns."""
        return hidden_of(self.call(stop, weights, norm_params))

    @torch.no_grad()
    def validation_outputs(self, weights: Weights) -> list[Tensor]:
        """The block's output on held-out windows, for each batch."""
        return [self.run(batch.inputs, weights) for batch in self.validation]

    @torch.no_grad()
    def validation_loss(self, weights: Weights, norm_params: Mapping[str, Tensor] | None = None) -> float:
        """Relative squared error of the block's output on held-out windows."""
        error = norm = 0.0
        for batch in self.validation:
            part, whole = batch.sums(self.run(batch.inputs, weights, norm_params))
            error, norm = error + float(part), norm + float(whole)
        return error / max(norm, 1e-30)

    def held_out_loss(self, weights: Weights) -> float:
        """What choices go by: the loss of the whole model where it is known, else that of the block."""
        return self.validation_loss(weights) if self.model_loss is None else self.model_loss(self, weights)


def shifted_bias(layer: Layer, pruned: Tensor, change: Tensor | None) -> Tensor:
    """b + (W - M*W) mu: what the pruned weights gave on average, and the learned change."""
    assert layer.bias is not None
    bias = layer.bias + (layer.weight - pruned) @ layer.mean
    return bias if change is None else bias + change


def view_factor(
    groups: Sequence[ScaleGroup], scales: Mapping[str, Tensor], view: WeightView, axis: Literal["rows", "columns"]
) -> Tensor | None:
    """What scales multiply the rows [d_out] or columns [d_in] of one view by; None where nothing scales them.

    Args:
        groups: of the view's block.
        scales: s by the name of its group; groups that are left out are not scaled.
        view: one weight.
        axis: which side of it.
    """
    factor = None
    for group in groups:
        for scaled in group.axes:
            if scaled.view is view and scaled.axis == axis and group.name in scales:
                own = scaled.factor(scales[group.name])
                factor = own if factor is None else factor * own
    return factor


@contextmanager
def naming(view: WeightView) -> Iterator[None]:
    """Numerical errors of a method, which knows no names, with the name of the layer put before them."""
    try:
        yield
    except NumericalError as error:
        raise NumericalError(f"layer {view.name!r}: {error}") from error
