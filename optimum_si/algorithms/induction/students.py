"""The block as a function of what is learned: scales through the mask, and what is left of its weights."""

import math

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import Scaling, Weights, finished
from optimum_si.config.groups import InductionConfig

from .kept import Kept
from .masking import log_score, straight_through_mask
from .spectral import SpectralNormLoss


class ScaleStudent:
    """The masked block as a function of log s and of what is learned of the weights that are left.

    Args:
        state: the block.
        settings: how to learn.
        logs: initial log s by the name of its scale group; trained in place.
        kept: trained in place.
    """

    def __init__(self, state: BlockState, settings: InductionConfig, logs: dict[str, Tensor], kept: Kept) -> None:
        self.state, self.settings, self.logs, self.kept = state, settings, logs, kept
        self.base = {
            layer.view.name: log_score(state.method.score(layer.weight, layer.scored_moments(settings.shift)))
            for layer in state.layers
        }
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
        """Masked weights and shifted biases, differentiable in all that is learned."""
        state, scales, kept = self.state, self.scales(), self.kept.scaling()
        result = {}
        for layer in state.layers:
            score = self.base[layer.view.name]
            if (columns := state.column_factor(scales, layer)) is not None:
                score = score + columns.log()
            if (rows := state.row_factor(scales, layer)) is not None:
                score = score + rows.log()[:, None]
            masked = layer.weight * straight_through_mask(score, layer.target, self.settings.temperature)
            result[layer.view.name] = finished(layer, masked, kept)
        return result

    def scaled_weights(self) -> list[Tensor]:
        """W_l S_l of Eq. 8."""
        scales = self.scales()
        factors = [self.state.column_factor(scales, layer) for layer in self.state.layers]
        return [
            layer.weight if factor is None else layer.weight * factor
            for layer, factor in zip(self.state.layers, factors, strict=True)
        ]

    def spectral_loss(self) -> Tensor | None:
        """R_p at the current scales (Eq. 8)."""
        return None if self.spectral is None else self.spectral(self.scaled_weights())

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep every s within [1 / max_scale, max_scale]."""
        bound = math.log(self.settings.max_scale)
        for log in self.logs.values():
            log.clamp_(-bound, bound)

    def scaling(self) -> Scaling:
        """A copy of the current scales, and of what is learned of the weights that are left."""
        return self.kept.copied({name: scale.detach().clone() for name, scale in self.scales().items()})
