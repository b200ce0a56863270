"""Refinement of one block: its kept weights, biases and norms by gradient."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.stage import Need, block_generator
from optimum_si.config.si_config import SIConfig
from optimum_si.linalg.finite import all_finite

from .refine import refine


@dataclass(frozen=True)
class RefinementStage:
    """Refines what earlier stages pruned.

    Args:
        epochs: passes over the calibration windows.
        seed: of the run.
    """

    epochs: int
    seed: int
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DENSE_STREAM})

    @classmethod
    def of(cls, config: SIConfig) -> "RefinementStage":
        """The stage of a recipe with ``refine_epochs``."""
        return cls(config.refine_epochs, config.seed)

    def __call__(self, state: BlockState) -> BlockState:
        # A generator anew: whether scales were learned before or taken up makes no difference.
        refined = refine(state, self.epochs, block_generator(self.seed, state))
        views = {layer.view.name: layer.view for layer in state.layers}
        weights = {
            name: _without_new_zeros(state.weights[name][0], *state.as_stored(views[name], *pair))
            for name, pair in refined.weights.items()
        }
        norms = {name: state.norm_as_stored(name, value) for name, value in refined.norm_params.items()}
        if not all_finite((*(value for pair in weights.values() for value in pair), *norms.values())):
            unrefined = dict.fromkeys(weights, "no refinement")
            return replace(state, fallbacks={**unrefined, **state.fallbacks}, refinement=(refined.loss_before,) * 2)
        losses = refined.loss_before, refined.loss_after
        return replace(state, weights=weights, norm_params=norms, refinement=losses, outputs=None)


def _without_new_zeros(before: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A weight that came to zero exactly, or too near it for its dtype, would count among those pruned."""
    return torch.where((weight == 0) & (before != 0), before, weight), bias
