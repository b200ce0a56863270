"""Pruning of one block by the method of the recipe, each layer for itself."""

from dataclasses import dataclass, replace
from typing import ClassVar

from optimum_si.algorithms.block_state import PLAIN, BlockState
from optimum_si.algorithms.stage import Need


@dataclass(frozen=True)
class PruningStage:
    """Prunes each layer for itself, with the scaling that was chosen for its block."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __call__(self, state: BlockState) -> BlockState:
        if state.scaling is None:
            return replace(state, weights=state.prune(PLAIN))
        # Induction has pruned with what it tried; scales of an earlier run have not been tried here.
        plain = state.plain_weights or state.prune(PLAIN)
        weights = plain if state.scaling is PLAIN else state.weights or state.prune(state.scaling)
        return replace(state, weights=weights, plain_weights=plain)
