"""One block as an optimisation problem: its weights, their inputs, and what the dense block would answer (Eq. 7)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..models.calls import Call
from ..models.channels import Channels
from ..models.views import WeightView
from ..pruning.base import PruningMethod
from ..pruning.targets import Target
from ..statistics import Moments
from .absorption import view_factor


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
        """Moments to score with: centred where the shift takes the mean away (design: H - mu mu^T)."""
        return self.moments.transformed(shift=self.moments.mean) if shifted and self.shift else self.moments


@dataclass(frozen=True, eq=False)
class Candidate:
    """Scales and shifts of one block.

    Args:
        scales: s by the name of its channels; channels that are left out keep s = 1.
        shifted: whether biases take up the shift.
        bias_change: learned change of each shifted bias beyond mean compensation, by view name, [d_out].
    """

    scales: Mapping[str, Tensor]
    shifted: bool
    bias_change: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of calibration data at one block.

    Args:
        hidden: inputs from the already pruned blocks, [batch, tokens, features].
        call: the block's other arguments.
        target: outputs of the dense block on dense inputs, like ``hidden``.
        mask: bool [batch, tokens] of real tokens, or None.
    """

    hidden: Tensor
    call: Call
    target: Tensor
    mask: Tensor | None

    def sums(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error of ``output`` and squared norm of the target, summed over real tokens."""
        error, target = (output - self.target).square(), self.target.square()
        if self.mask is not None:
            error, target = error[self.mask], target[self.mask]
        return error.sum(), target.sum()


@dataclass(frozen=True, eq=False)
class BlockProblem:
    """A block, its layers, the channels around them, and calibration data split in two."""

    block: nn.Module
    parameter_names: Mapping[str, tuple[str, str]]
    method: PruningMethod
    layers: list[Layer]
    channels: list[Channels]
    training: list[Batch]
    validation: list[Batch]

    def factor(self, scales: Mapping[str, Tensor], layer: Layer, axis: Literal["rows", "columns"]) -> Tensor | None:
        """What scales multiply a layer's rows or columns by."""
        return view_factor(self.channels, scales, layer.view, axis)

    def prune(self, candidate: Candidate) -> Weights:
        """Pruned weight and bias of every layer, by view name, under a candidate's scales and shifts."""
        return {layer.view.name: self._prune_layer(candidate, layer) for layer in self.layers}

    def _prune_layer(self, candidate: Candidate, layer: Layer) -> tuple[Tensor, Tensor | None]:
        weight = self.method.prune(
            layer.weight,
            layer.scored_moments(candidate.shifted),
            layer.target,
            scale=self.factor(candidate.scales, layer, "columns"),
            row_scale=self.factor(candidate.scales, layer, "rows") if self.method.ranks_rows_together else None,
        )
        if not (candidate.shifted and layer.shift):
            return weight, layer.bias
        return weight, self.shifted_bias(layer, weight, candidate.bias_change.get(layer.view.name))

    def shifted_bias(self, layer: Layer, pruned: Tensor, change: Tensor | None) -> Tensor:
        """b + (W - M*W) mu: what the pruned weights gave on average (design 1.2), and the learned change."""
        assert layer.bias is not None
        bias = layer.bias + (layer.weight - pruned) @ layer.mean
        return bias if change is None else bias + change

    def run(self, hidden: Tensor, call: Call, weights: Weights) -> Tensor:
        """The block's output with other weights, without writing them."""
        overrides: dict[str, Tensor] = {}
        for layer in self.layers:
            weight, bias = weights[layer.view.name]
            weight_name, bias_name = self.parameter_names[layer.view.name]
            whole = overrides.get(weight_name, layer.view.tensor().detach())
            overrides[weight_name] = layer.view.embed(whole, weight)
            if bias is not None:
                whole_bias = layer.view.bias_tensor()
                assert whole_bias is not None
                overrides[bias_name] = layer.view.embed_bias(overrides.get(bias_name, whole_bias.detach()), bias)

        def block(*args: Any, **kwargs: Any) -> Any:
            return torch.func.functional_call(self.block, overrides, args, kwargs)

        return call.run(block, hidden)

    @torch.no_grad()
    def validation_loss(self, weights: Weights) -> float:
        """Relative squared error of the block's output on held-out windows."""
        error = norm = 0.0
        for batch in self.validation:
            part, whole = batch.sums(self.run(batch.hidden, batch.call, weights))
            error, norm = error + float(part), norm + float(whole)
        return error / max(norm, 1e-30)
