"""Wanda (Sun et al. 2023, arXiv 2306.11695): weight times the norm of its input, ranked within each output row."""

from torch import Tensor

from optimum_si.algorithms.pruning.method import PruningMethod
from optimum_si.linalg.moments import Moments


class Wanda(PruningMethod):
    """``|W_ij| sqrt(H_jj)``; on transformed moments ``|W_ij| sqrt(H_jj) s_j`` (paper, Eq. 11)."""

    def score(self, weight: Tensor, moments: Moments) -> Tensor:
        return weight.abs() * moments.diagonal.sqrt().to(weight.dtype)


METHOD = Wanda
