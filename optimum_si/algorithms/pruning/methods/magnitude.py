"""Magnitude pruning: the smallest weights go, ranked over the whole layer."""

from torch import Tensor

from optimum_si.algorithms.pruning.method import PruningMethod
from optimum_si.linalg.moments import Moments


class Magnitude(PruningMethod):
    """``|W|``; after induction ``|W S|``, the magnitude of the absorbed weight.

    No statistics: ``moments.scale`` [d_in] holds the learned scale, ones before induction.
    """

    group = "layer"
    ranks_rows_together = True

    def score(self, weight: Tensor, moments: Moments) -> Tensor:
        return weight.abs() * moments.scale.to(weight.dtype)


METHOD = Magnitude
