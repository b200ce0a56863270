"""What a stage is: one algorithm, applied to one block after the other."""

from enum import Enum, auto
from typing import Protocol

import torch

from .block_state import BlockState


class Need(Enum):
    """What a stage wants a run to collect."""

    #: Full Gram matrices of the inputs instead of their diagonals.
    GRAM = auto()
    #: Runs of the dense model beside those of the pruned one, with held-out windows to choose by.
    DENSE_STREAM = auto()
    #: What flows between the layers of the block.
    FLOW = auto()
    #: Inputs of all layers and outputs of the dense block, before any layer is pruned.
    WHOLE_BLOCK = auto()


class BlockStage(Protocol):
    """One algorithm with all its settings; complete when it is made.

    Attributes:
        needs: what the run has to collect for it.
    """

    @property
    def needs(self) -> frozenset[Need]: ...

    def __call__(self, state: BlockState) -> BlockState:
        """The state with what this stage decides; a state without layers is never given."""
        ...


def block_generator(seed: int, state: BlockState) -> torch.Generator:
    """Each block draws from its own generator, so that its result does not depend on how others were treated."""
    return torch.Generator().manual_seed(seed * 65_537 + state.index)
