"""A method whose kept weights are fitted afterwards, each layer for itself."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.method import Improved, PruningMethod, Settings, bare_method
from optimum_si.algorithms.pruning.targets import Target, Unstructured
from optimum_si.config.si_config import SIConfig
from optimum_si.linalg.damping import safe_damping
from optimum_si.linalg.moments import Moments

from .least_squares import DampedGram, LeastSquares
from .swaps import swapped


#: Penalties that ADMM chooses among for each layer, and rows of it that the choice is made on.
PENALTIES, ROWS = (0.3, 1.0), 32
#: Swaps and fits in turn at most: a fit changes which swaps help.
ROUNDS = 3


class Reconstructed(Improved):
    """A method, and least squares on what it keeps.

    Args:
        method: finds the mask.
        mask_search: look for a mask by ADMM instead.
        settings: its damping is that of the fit.
        swaps: also exchange kept for pruned weights, as long as fits of what that gives become better.
    """

    keeps_weights = False

    def __init__(self, method: PruningMethod, mask_search: bool, settings: Settings, swaps: bool = False) -> None:
        super().__init__(method, settings)
        self.mask_search, self.swaps = mask_search, swaps
        self.counts_rows = mask_search or method.counts_rows  # type: ignore[misc]

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
        damping = safe_damping(self.settings.damping, moments.count, len(moments.gram))
        damped = DampedGram.of(moments.gram, damping, self.settings.damping_mode, weight.dtype)
        squares = LeastSquares.of(weight, damped)

        def by_method() -> Tensor:
            return self.method.prune(weight, moments, target, scale, row_scale)

        return self.fitted(squares, by_method, target, scale, row_scale)

    def fitted(
        self,
        squares: LeastSquares,
        by_method: Callable[[], Tensor],
        target: Target,
        scale: Tensor | None = None,
        row_scale: Tensor | None = None,
    ) -> Tensor:
        """The best weight in the mask of the method, or in ADMM's; with swaps in a mask near it that is better.

        ADMM's mask with its own fit beats the method's mask with an exact one on every layer that was looked at (by an
        eighth of the error), so that the method is not asked for a mask where ADMM looks for one.

        Args:
            squares: the least squares problem.
            by_method: prunes by the method, [d_out, d_in].
            target: of the mask.
            scale: learned s, [d_in], which weighs what ADMM keeps.
            row_scale: what rows are multiplied by where they are ranked together, [d_out].
        """
        weight = squares.weight
        if self.mask_search:
            importance = None if scale is None else scale.to(weight.dtype)
            penalty = _penalty(squares, target)
            if row_scale is None:
                best = squares.search(target, weight != 0, importance, penalty)
            else:  # each row is a problem of its own: multiplied, it has the same solution, but other ranks
                factor = row_scale.to(weight.dtype)[:, None]
                best = squares.multiplied(factor).search(target, weight != 0, importance, penalty) / factor
        else:
            best = squares.into(by_method())
        best = squares.exact(best != 0, best, rough=self.swaps)
        if self.swaps:
            best = _refined(squares, best, weight != 0, target.exchange(weight.shape[1]))
            best = squares.exact(best != 0, best)
        return squares.out_of(best)


def _penalty(squares: LeastSquares, target: Target) -> float:
    """The penalty of ADMM that some rows of a layer err least with: outputs of attention want a small one."""
    if isinstance(target, Unstructured):
        target = replace(target, group="row")
    some = squares.rows(slice(None, None, -(-len(squares.weight) // ROWS)))

    def error(penalty: float) -> float:
        return float(some.errors(some.search(target, some.weight != 0, penalty=penalty)).sum())

    return min(PENALTIES, key=error)


def _refined(squares: LeastSquares, best: Tensor, allowed: Tensor, size: int) -> Tensor:
    """Swaps and fits in turn, from a fitted weight in the coordinates of ``squares``."""
    for _ in range(ROUNDS):
        moved = swapped(best, squares.target_gram, squares.gram, allowed & squares.alive, size)
        if torch.equal(moved != 0, best != 0):
            break
        best = squares.better(squares.exact(moved != 0, moved, rough=True), best)
    return best
