"""Pruning of one block by the method of the recipe, layer after layer."""

from dataclasses import dataclass, replace

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.induction.rescale import rescaled
from optimum_si.algorithms.layers import PLAIN, Layer
from optimum_si.algorithms.sequence.decide import Decision, decide_in_sequence
from optimum_si.algorithms.sequence.inputs import PairedInput
from optimum_si.algorithms.stage import Need
from optimum_si.config.si_config import SIConfig


@dataclass(frozen=True)
class PruningStage:
    """Prunes each layer with the scaling that was chosen for its block.

    Args:
        rescales: whether what is left of a layer is scaled to its dense output.
    """

    rescales: bool

    @classmethod
    def of(cls, config: SIConfig) -> "PruningStage":
        """The stage of a recipe whose layers are not fitted in sequence."""
        fitted = config.reconstruction != "none"
        return cls(config.induction is not None and config.induction.rescale and not fitted)

    @property
    def needs(self) -> frozenset[Need]:
        """Full Gram matrices where scales are found on them."""
        return frozenset({Need.GRAM} if self.rescales else ())

    def __call__(self, state: BlockState) -> BlockState:
        scaling = state.scaling or PLAIN

        def decide(layer: Layer, paired: PairedInput | None) -> Decision:
            plain = None if state.scaling is None else state.pruned(layer, PLAIN)
            weight, bias = plain if plain is not None and scaling is PLAIN else state.pruned(layer, scaling)
            if self.rescales:
                weight, bias = rescaled(layer, weight, bias)
            return Decision(weight, bias, plain)

        state = replace(state, plain_weights=None)
        return decide_in_sequence(state, decide, gram=state.method.needs_gram or self.rescales, paired=False)
