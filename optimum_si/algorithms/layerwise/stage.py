"""Pruning of one block by the method of the recipe, layer after layer."""

from dataclasses import dataclass, replace
from typing import ClassVar

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import PLAIN, Layer
from optimum_si.algorithms.sequence.decide import Decision, decide_in_sequence
from optimum_si.algorithms.sequence.inputs import PairedInput
from optimum_si.algorithms.stage import Need


@dataclass(frozen=True)
class PruningStage:
    """Prunes each layer with the scaling that was chosen for its block."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __call__(self, state: BlockState) -> BlockState:
        scaling = state.scaling or PLAIN

        def decide(layer: Layer, paired: PairedInput | None, caution: float) -> Decision:
            chosen = state if caution == 1 else replace(state, method=state.method.cautious(caution))
            plain = None if state.scaling is None else chosen.pruned(layer, PLAIN)
            weight, bias = plain if plain is not None and scaling is PLAIN else chosen.pruned(layer, scaling)
            return Decision(weight, bias, plain)

        state = replace(state, plain_weights=None)
        method = state.method
        return decide_in_sequence(state, decide, method.counts_rows, gram=method.needs_gram, paired=False)
