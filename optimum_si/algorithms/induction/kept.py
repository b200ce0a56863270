"""What is learned of the weights that are left: factors of their rows and columns, and changes of biases.

A scale of Eq. 3 leaves the dense function as it is, because both of its sides carry the same s. Once weights are gone
the sides need not agree any more: each pruned layer gets factors of its own, in log, for its outputs and its inputs.
They end in its own weights, as the shift ends in its own bias, and cost nothing where the model runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import Scaling, Weights, finished
from optimum_si.config.groups import InductionConfig


@dataclass(frozen=True, eq=False)
class Kept:
    """Learned values, trained in place; whatever is left out stays as it is.

    Args:
        rows, columns: log factors by view name, [d_out] and [d_in].
        bias_changes: beyond mean compensation, by view name, [d_out].
        shifted: whether biases take up the shift.
    """

    rows: Mapping[str, Tensor] = field(default_factory=dict)
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    bias_changes: Mapping[str, Tensor] = field(default_factory=dict)
    shifted: bool = False

    @classmethod
    def of(cls, state: BlockState, settings: InductionConfig) -> "Kept":
        """All that a recipe wants to be learned, at factors of 1 and no changes."""
        rows, columns, changes = {}, {}, {}
        for layer in state.layers:
            name = layer.view.name
            if settings.rescale:
                rows[name], columns[name] = (_zeros(layer.weight, size) for size in layer.weight.shape)
            if settings.shift and layer.shift and layer.bias is not None:
                changes[name] = _zeros(layer.bias, len(layer.bias))
        return cls(rows, columns, changes, settings.shift)

    def scaling(self) -> Scaling:
        """These without scales s, differentiable in what is learned."""
        rows, columns = ({name: log.exp() for name, log in logs.items()} for logs in (self.rows, self.columns))
        return Scaling({}, self.shifted, self.bias_changes, rows, columns)

    def copied(self, scales: Mapping[str, Tensor]) -> Scaling:
        """Copies of these beside scales s by the name of their scale group."""
        now = self.scaling()
        changes, rows, columns = (
            {name: value.detach().clone() for name, value in values.items()}
            for values in (now.bias_change, now.rows, now.columns)
        )
        return Scaling(scales, self.shifted, changes, rows, columns)


class KeptStudent:
    """A pruned block as a function of what is learned of its weights, whose masks and values stay.

    Args:
        state: the block.
        pruned: its weights; biases that take up the shift are made anew.
        kept: trained in place.
    """

    def __init__(self, state: BlockState, pruned: Weights, kept: Kept) -> None:
        self.state, self.pruned, self.kept = state, pruned, kept
        self.logs: dict[str, Tensor] = {}

    def weights(self) -> Weights:
        """Weights and biases, differentiable."""
        now = self.kept.scaling()
        return {layer.view.name: finished(layer, self.pruned[layer.view.name][0], now) for layer in self.state.layers}

    def spectral_loss(self) -> None:
        """Scores are settled, so Eq. 8 has nothing to say."""

    def clamp(self) -> None:
        """Nothing here is bounded."""

    def scaling(self) -> Scaling:
        """A copy of what is learned."""
        return self.kept.copied({})


def _zeros(like: Tensor, size: int) -> Tensor:
    return like.new_zeros(size).requires_grad_()
