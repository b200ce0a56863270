"""The block as a function of what is learned: scales through the mask, or biases alone."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import Scaling, Weights, shifted_bias
from optimum_si.config.groups import InductionConfig

from .masking import log_score, straight_through_mask
from .spectral import SpectralNormLoss


class ScaleStudent:
    """The masked block as a function of log s and of bias changes.

    Args:
        state: the block.
        settings: how to learn.
        logs: initial log s by the name of its scale group; trained in place.
    """

    def __init__(self, state: BlockState, settings: InductionConfig, logs: dict[str, Tensor]) -> None:
        self.state, self.settings, self.logs = state, settings, logs
        self.base = {
            layer.view.name: log_score(state.method.score(layer.weight, layer.scored_moments(settings.shift)))
            for layer in state.layers
        }
        self.bias_changes = _zero_changes(state) if settings.shift else {}
        self.spectral: SpectralNormLoss | None = None
        if settings.spectral_weight:
            self.spectral = SpectralNormLoss(
                [weight.detach() for weight in self.scaled_weights()],
                settings.spectral_p,
                settings.spectral_alpha,
                settings.spectral_normalized,
            )

    def scales(self) -> dict[str, Tensor]:
        """s by the name of its scale group, differentiable in log s."""
        return {name: log.exp() for name, log in self.logs.items()}

    def weights(self) -> Weights:
        """Masked weights and shifted biases, differentiable in log s and bias changes."""
        state, scales = self.state, self.scales()
        result = {}
        for layer in state.layers:
            score = self.base[layer.view.name]
            if (columns := state.column_factor(scales, layer)) is not None:
                score = score + columns.log()
            if (rows := state.row_factor(scales, layer)) is not None:
                score = score + rows.log()[:, None]
            masked = layer.weight * straight_through_mask(score, layer.target, self.settings.temperature)
            change = self.bias_changes.get(layer.view.name)
            bias = layer.bias if change is None else shifted_bias(layer, masked, change)
            result[layer.view.name] = masked, bias
        return result

    def scaled_weights(self) -> list[Tensor]:
        """W_l S_l of Eq. 8."""
        scales = self.scales()
        factors = [self.state.column_factor(scales, layer) for layer in self.state.layers]
        return [
            layer.weight if factor is None else layer.weight * factor
            for layer, factor in zip(self.state.layers, factors, strict=True)
        ]

    def loss_terms(self) -> tuple[Weights, Tensor | None]:
        """Weights to run the block with, and R_p at the current scales."""
        return self.weights(), None if self.spectral is None else self.spectral(self.scaled_weights())

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Held-out loss of the masked block."""
        return self.state.validation_loss(self.weights())

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep every s within [1 / max_scale, max_scale]."""
        bound = math.log(self.settings.max_scale)
        for log in self.logs.values():
            log.clamp_(-bound, bound)

    def scaling(self) -> Scaling:
        """A copy of the current scales and bias changes."""
        scales = {name: scale.detach().clone() for name, scale in self.scales().items()}
        return Scaling(scales, self.settings.shift, _copied(self.bias_changes))


class BiasStudent:
    """A pruned block as a function of bias changes alone.

    Args:
        state: the block.
        pruned: its pruned weights.
    """

    def __init__(self, state: BlockState, pruned: Weights) -> None:
        self.state, self.pruned = state, pruned
        self.bias_changes = _zero_changes(state)

    def loss_terms(self) -> tuple[Weights, None]:
        """Weights to run the block with, differentiable in bias changes."""
        return changed(self.pruned, self.bias_changes), None

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Held-out loss of the pruned block."""
        return self.state.validation_loss(self.loss_terms()[0])

    def clamp(self) -> None:
        """Biases are free."""

    def scaling(self) -> Scaling:
        """A copy of the current bias changes."""
        return Scaling({}, True, _copied(self.bias_changes))


def changed(weights: Weights, changes: Mapping[str, Tensor]) -> Weights:
    """Weights with changes added to their biases."""
    result = dict(weights)
    for name, change in changes.items():
        weight, bias = weights[name]
        assert bias is not None
        result[name] = weight, bias + change
    return result


def _zero_changes(state: BlockState) -> dict[str, Tensor]:
    return {
        layer.view.name: torch.zeros_like(layer.bias, requires_grad=True)
        for layer in state.layers
        if layer.shift and layer.bias is not None
    }


def _copied(changes: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values.detach().clone() for name, values in changes.items()}
