"""Pruning and fitting of one block, layer after layer, each to repair what the layers before it broke."""

from dataclasses import dataclass
from typing import ClassVar

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import PLAIN, Layer
from optimum_si.algorithms.sequence.decide import Decision, decide_in_sequence
from optimum_si.algorithms.sequence.inputs import PairedInput
from optimum_si.algorithms.stage import Need
from optimum_si.config.si_config import SIConfig

from .fitting import LayerFitter
from .method import Reconstructed


@dataclass(frozen=True)
class FittingStage:
    """Prunes and fits the layers of a block in sequence, with the scaling that was chosen for it.

    Args:
        method: finds masks and fits.
        repair: fraction of the dense model's output in the targets; None chooses it for each layer.
        refined_later: whether a later stage needs fits that have not seen the held-out windows.
    """

    method: Reconstructed
    repair: float | None
    refined_later: bool
    needs: ClassVar[frozenset[Need]] = frozenset({Need.DENSE_STREAM, Need.FLOW})

    @classmethod
    def of(cls, config: SIConfig) -> "FittingStage":
        """The stage of a recipe with reconstruction and repair."""
        repair = None if config.repair == "auto" else float(config.repair)
        return cls(Reconstructed.of(config), repair, config.refine_epochs > 0)

    def __call__(self, state: BlockState) -> BlockState:
        scaling = state.scaling or PLAIN

        def decide(layer: Layer, paired: PairedInput | None, caution: float) -> Decision:
            assert paired is not None
            scale, row_scale = state.column_factor(scaling.scales, layer), state.row_factor(scaling.scales, layer)
            method = self.method if caution == 1 else self.method.cautious(caution)
            fitter = LayerFitter(method, layer, paired, scale, row_scale)
            fit = fitter.choose(self.repair)
            weight, bias = fitter.solve(fit)
            unseen = fitter.within(weight != 0, fit) if self.refined_later else None
            plain = None if state.scaling is None else (weight, bias)
            return Decision(weight, bias, plain, unseen, fit)

        return decide_in_sequence(state, decide, self.method.counts_rows, gram=True, paired=True)
