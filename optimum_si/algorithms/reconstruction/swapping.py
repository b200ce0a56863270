"""A method whose mask is refined by swaps afterwards, without a fit."""

from torch import Tensor

from optimum_si.algorithms.pruning.method import Improved, PruningMethod
from optimum_si.algorithms.pruning.targets import Target
from optimum_si.linalg.moments import Moments
from optimum_si.linalg.units import unit_of

from .swaps import swapped


class Swapped(Improved):
    """A method, and swaps on what it keeps.

    Weights that are put in have their dense value where the method keeps weights as they are, so that swaps move the
    mask alone; elsewhere the value that lowers the row's error most.

    Args:
        method: finds the mask that swaps start from; learned scales weigh its scores, and not the swaps.
    """

    def __init__(self, method: PruningMethod) -> None:
        super().__init__(method)
        self.keeps_weights = method.keeps_weights  # type: ignore[misc]

    def prune(
        self,
        weight: Tensor,
        moments: Moments,
        target: Target,
        scale: Tensor | None = None,
        row_scale: Tensor | None = None,
    ) -> Tensor:
        assert moments.gram is not None, "swaps need the full Gram matrix"
        unit = unit_of(weight)
        weight = weight / unit
        pruned = self.method.prune(weight, moments, target, scale, row_scale)
        gram = (moments.gram / unit_of(moments.diagonal)).to(weight.dtype)
        values = weight if self.keeps_weights else None
        size = target.exchange(weight.shape[1])
        return swapped(pruned, weight @ gram, gram, weight != 0, size, values).mul_(unit)
