"""Sparsity Induction of one block: scales and shifts, learned or taken up from an earlier run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import PLAIN, Scaling
from optimum_si.algorithms.stage import Need, block_generator
from optimum_si.config.groups import InductionConfig
from optimum_si.config.si_config import SIConfig

from .choose import choose


@dataclass(frozen=True)
class InductionStage:
    """Chooses the scaling of a block.

    Args:
        settings: how scales are learned and chosen.
        seed: of the run.
        learns_kept: whether factors and biases of what the method left are learned too; a later fit does more.
        saved: scalings of an earlier run by block name, taken up instead of learning; None learns.
    """

    settings: InductionConfig
    seed: int
    learns_kept: bool
    saved: Mapping[str, Scaling] | None = None

    @classmethod
    def of(cls, config: SIConfig, saved: Mapping[str, Scaling] | None) -> "InductionStage":
        """The stage of a recipe with induction."""
        assert config.induction is not None
        return cls(config.induction, config.seed, not config.fits_in_sequence, saved)

    needs: ClassVar[frozenset[Need]] = frozenset({Need.DENSE_STREAM, Need.FLOW, Need.WHOLE_BLOCK})

    def __call__(self, state: BlockState) -> BlockState:
        if self.saved is not None:
            return replace(state, scaling=self.saved.get(state.name, PLAIN))
        return choose(state, self.settings, block_generator(self.seed, state), self.learns_kept)
