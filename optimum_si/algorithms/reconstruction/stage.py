"""Pruning and fitting of one block, layer after layer, each to repair what the layers before it broke."""

from dataclasses import dataclass, replace
from typing import ClassVar

from optimum_si.algorithms.block_state import PLAIN, BlockState
from optimum_si.algorithms.induction.choose import MARGIN
from optimum_si.algorithms.stage import Need
from optimum_si.config.si_config import SIConfig

from .method import Reconstructed
from .sequence import Fitted, fit_block


@dataclass(frozen=True)
class FittingStage:
    """Prunes and fits the layers of a block in sequence.

    Scales that were chosen before any fit have to prove themselves again on what a fit makes of them: its weights
    differ from those that they were learned on. They are dropped where the plain method does as well after its fit.

    Args:
        method: finds masks and fits.
        repair: fraction of the dense model's output in the targets; None chooses it for each layer.
        refined_later: whether a later stage needs fits that have not seen the held-out windows.
    """

    method: Reconstructed
    repair: float | None
    refined_later: bool
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DENSE_STREAM})

    @classmethod
    def of(cls, config: SIConfig) -> "FittingStage":
        """The stage of a recipe with reconstruction and repair."""
        repair = None if config.repair == "auto" else float(config.repair)
        return cls(Reconstructed.of(config), repair, config.refine_epochs > 0)

    def __call__(self, state: BlockState) -> BlockState:
        plain = _with(state, fit_block(state, self.method, PLAIN, self.repair, self.refined_later))
        if state.scaling is None:
            return plain
        plain_loss = state.held_out_loss(plain.weights)
        plain = replace(plain, scaling=PLAIN, plain_weights=plain.weights, losses=(plain_loss, plain_loss))
        if not state.scaling.scales:
            return plain
        scaled = _with(plain, fit_block(state, self.method, state.scaling, self.repair, self.refined_later))
        loss = state.held_out_loss(scaled.weights)
        if loss >= (1 - MARGIN) * plain_loss:
            return plain
        return replace(scaled, scaling=state.scaling, losses=(plain_loss, loss))


def _with(state: BlockState, fitted: Fitted) -> BlockState:
    return replace(state, weights=fitted.weights, without_held_out=fitted.without_held_out, fits=fitted.fits)
