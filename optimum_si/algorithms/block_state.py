"""One block as an optimization problem: its weights, their inputs, and what the dense block would answer (Eq. 7)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.algorithms.induction.absorption import view_factor
from optimum_si.algorithms.pruning.method import PruningMethod
from optimum_si.algorithms.pruning.targets import Target
from optimum_si.errors import NumericalError
from optimum_si.linalg.moments import Moments
from optimum_si.models.forward.calls import Call
from optimum_si.models.scale_groups import Channels
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
        """Moments to score with: centered where the shift takes the mean away (design: H - mu mu^T)."""
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

    def part_of_the_way(self, share: float) -> "Candidate":
        """The candidate at a share of its distance from s = 1 (in log s) and from mean compensation."""
        scales = {name: scale**share for name, scale in self.scales.items()}
        return Candidate(scales, self.shifted, {name: share * change for name, change in self.bias_change.items()})


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of calibration data at one block.

    Args:
        hidden: inputs from the already pruned blocks, [batch, tokens, features].
        call: the block's other arguments.
        target: outputs of the dense block on dense inputs, like ``hidden``.
        mask: bool [batch, tokens] of real tokens, or None.
        weight: what the error of each token counts, broadcasts against ``target``; None counts all alike.
        dense: inputs of the dense block, like ``hidden``; None where nothing is fitted to them.
        other_mask: like ``mask``, for the other states in ``call``.
    """

    hidden: Tensor
    call: Call
    target: Tensor
    mask: Tensor | None
    weight: Tensor | None = None
    dense: Tensor | None = None
    other_mask: Tensor | None = None

    def sums(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted squared error of ``output`` and squared norm of the target, summed over real tokens."""
        error, target = (output - self.target).square(), self.target.square()
        if self.weight is not None:
            error, target = error * self.weight, target * self.weight
        if self.mask is not None:
            error, target = error[self.mask], target[self.mask]
        return error.sum(), target.sum()


#: Windows that choices are made on at least, where a quarter of all are that many: fewer cannot tell gain from noise.
FEWEST_HELD_OUT = 8


def held_out(windows: int, batch_size: int, fraction: float) -> int:
    """How many of the first batches are held out: at least one, and not all unless there is just one."""
    batches = -(-windows // batch_size)
    fewest = min(FEWEST_HELD_OUT, windows // 4) // batch_size
    return 1 if batches < 2 else min(max(round(fraction * batches), fewest, 1), batches - 1)


def normalized(batch: Batch) -> Batch:
    """The batch with weights that bring the target of every token to the same norm.

    What follows a block normalizes each token, so its error matters relative to it. Tokens of huge norm (attention
    sinks) would otherwise be all that a plain MSE sees.
    """
    return replace(batch, weight=1 / batch.target.square().mean(dim=-1, keepdim=True).clamp_min(1e-12))


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

    def column_factor(self, scales: Mapping[str, Tensor], layer: Layer) -> Tensor | None:
        """The product of all learned s on a layer's input channels, [d_in]."""
        return view_factor(self.channels, scales, layer.view, "columns")

    def row_factor(self, scales: Mapping[str, Tensor], layer: Layer) -> Tensor | None:
        """What q <-> k scales multiply a layer's rows by, for methods that rank rows together.

        Rows that other pairs divide by their s are compared as they were: s is there for the columns of its consumer,
        and measured to rank its producer's rows badly.
        """
        if not self.method.ranks_rows_together:
            return None
        own = [entry for entry in self.channels if entry.rows_only]
        return view_factor(own, scales, layer.view, "rows")

    def prune(self, candidate: Candidate) -> Weights:
        """Pruned weight and bias of every layer, by view name, under a candidate's scales and shifts."""
        return {layer.view.name: self._prune_layer(candidate, layer) for layer in self.layers}

    def _prune_layer(self, candidate: Candidate, layer: Layer) -> tuple[Tensor, Tensor | None]:
        with naming(layer.view):
            weight = self.method.prune(
                layer.weight,
                layer.scored_moments(candidate.shifted),
                layer.target,
                scale=self.column_factor(candidate.scales, layer),
                row_scale=self.row_factor(candidate.scales, layer),
            )
        if not (candidate.shifted and layer.shift):
            return weight, layer.bias
        return weight, self.shifted_bias(layer, weight, candidate.bias_change.get(layer.view.name))

    def shifted_bias(self, layer: Layer, pruned: Tensor, change: Tensor | None) -> Tensor:
        """b + (W - M*W) mu: what the pruned weights gave on average (design 1.2), and the learned change."""
        assert layer.bias is not None
        bias = layer.bias + (layer.weight - pruned) @ layer.mean
        return bias if change is None else bias + change

    def run(self, hidden: Tensor, call: Call, weights: Weights, others: Mapping[str, Tensor] | None = None) -> Tensor:
        """The block's output with other weights, without writing them.

        Args:
            hidden: inputs of the block.
            call: its other arguments.
            weights: of every layer.
            others: further parameters of the block, by name inside it.
        """
        overrides: dict[str, Tensor] = dict(others or {})
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
    def validation_outputs(self, weights: Weights, others: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """The block's output on held-out windows, for each batch."""
        return [self.run(batch.hidden, batch.call, weights, others) for batch in self.validation]

    @torch.no_grad()
    def validation_loss(self, weights: Weights, others: Mapping[str, Tensor] | None = None) -> float:
        """Relative squared error of the block's output on held-out windows."""
        error = norm = 0.0
        for batch, output in zip(self.validation, self.validation_outputs(weights, others), strict=True):
            part, whole = batch.sums(output)
            error, norm = error + float(part), norm + float(whole)
        return error / max(norm, 1e-30)


@contextmanager
def naming(view: WeightView) -> Iterator[None]:
    """Numerical errors of a method, which knows no names, with the name of the layer put before them."""
    try:
        yield
    except NumericalError as error:
        raise NumericalError(f"layer {view.name!r}: {error}") from error
