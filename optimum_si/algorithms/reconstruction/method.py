"""A method whose kept weights are fitted afterwards, each layer for itself."""

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.method import Improved, PruningMethod, Settings, bare_method
from optimum_si.algorithms.pruning.targets import Target
from optimum_si.config.si_config import SIConfig
from optimum_si.linalg.damping import safe_damping
from optimum_si.linalg.moments import Moments

from .least_squares import LeastSquares
from .swaps import swapped


#: Swaps and fits in turn at most: a fit changes which swaps help.
ROUNDS = 3


class Reconstructed(Improved):
    """A method, and least squares on what it keeps.

    Args:
        method: finds the mask.
        mask_search: also look for a mask by ADMM, and keep the better of both.
        settings: its damping is that of the fit.
        swaps: also exchange kept for pruned weights, as long as fits of what that gives become better.
    """

    keeps_weights = False

    def __init__(self, method: PruningMethod, mask_search: bool, settings: Settings, swaps: bool = False) -> None:
        super().__init__(method, settings)
        self.mask_search, self.swaps = mask_search, swaps

    @classmethod
    def of(cls, config: SIConfig) -> "Reconstructed":
        """The method of a recipe with its fit."""
        method = bare_method(config)
        return cls(method, config.reconstruction == "admm", method.settings, config.swaps)

    def prune(
        self,
        weight: Tensor,
        moments: Moments,
        target: Target,
        scale: Tensor | None = None,
        row_scale: Tensor | None = None,
    ) -> Tensor:
        assert moments.gram is not None, "reconstruction needs the full Gram matrix"
        pruned = self.method.prune(weight, moments, target, scale, row_scale)
        damping = safe_damping(self.settings.damping, moments.count, len(moments.gram))
        squares = LeastSquares.of(weight, moments.gram, damping, mode=self.settings.damping_mode)
        return self.fitted(squares, pruned, target, weight != 0, scale)

    def fitted(
        self,
        squares: LeastSquares,
        pruned: Tensor,
        target: Target | None,
        allowed: Tensor,
        scale: Tensor | None = None,
    ) -> Tensor:
        """The best weight in the mask of ``pruned``, or in ADMM's or a swapped one where those are better.

        Args:
            squares: the least squares problem.
            pruned: by the method, [d_out, d_in].
            target: of masks that are looked for; None looks for no other, and fits roughly.
            allowed: bool [d_out, d_in], False where the dense weight is zero.
            scale: learned s, [d_in], which weighs what ADMM keeps.
        """
        compared = target is None or self.mask_search or self.swaps
        best = squares.exact(pruned != 0, squares.into(pruned), rough=compared)
        if target is None or not compared:
            return squares.out_of(best).to(pruned.dtype)
        if self.mask_search:
            importance = None if scale is None else scale.to(pruned.dtype)
            found = squares.search(target, allowed, importance)
            best = squares.better(best, squares.exact(found != 0, found, rough=True))
        if self.swaps:
            best = _refined(squares, best, allowed, target.exchange(pruned.shape[1]))
        best = squares.exact(best != 0, best)
        return squares.out_of(best).to(pruned.dtype)


def _refined(squares: LeastSquares, best: Tensor, allowed: Tensor, size: int) -> Tensor:
    """Swaps and fits in turn, from a fitted weight in the coordinates of ``squares``."""
    for _ in range(ROUNDS):
        moved = swapped(best, squares.target_gram, squares.gram, allowed & squares.alive, size)
        if torch.equal(moved != 0, best != 0):
            break
        best = squares.better(squares.exact(moved != 0, moved, rough=True), best)
    return best
