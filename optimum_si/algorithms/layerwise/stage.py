"""Pruning of one block by the method of the recipe, layer after layer."""

from dataclasses import dataclass, replace

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.induction.rescale import rescaled
from optimum_si.algorithms.layers import PLAIN, Layer
from optimum_si.algorithms.stage import Need
from optimum_si.config.si_config import SIConfig

from .decide import Decision, decide_in_sequence
from .inputs import PairedInput


@dataclass(frozen=True)
class PruningStage:
    """Prunes each layer with the scaling that was chosen for its block.

    Args:
        rescales: whether what is left of a layer is scaled to what the dense model gives there.
    """

    rescales: bool

    @classmethod
    def of(cls, config: SIConfig) -> "PruningStage":
        """The stage of a recipe whose layers are not fitted in sequence."""
        fitted = config.reconstruction != "none"
        return cls(config.induction is not None and config.induction.rescale and not fitted)

    @property
    def needs(self) -> frozenset[Need]:
        """The dense model beside the pruned one where that is aimed at."""
        return frozenset({Need.DENSE_STREAM, Need.FLOW} if self.rescales else ())

    def __call__(self, state: BlockState) -> BlockState:
        scaling = state.scaling or PLAIN

        def decide(layer: Layer, paired: PairedInput | None) -> Decision:
            plain = None if state.scaling is None else state.pruned(layer, PLAIN)
            weight, bias = plain if plain is not None and scaling is PLAIN else state.pruned(layer, scaling)
            if paired is not None:
                weight, bias = rescaled(layer, weight, bias, paired)
            return Decision(weight, bias, plain)

        state = replace(state, plain_weights=None)
        return decide_in_sequence(state, decide, gram=state.method.needs_gram, paired=self.rescales)
