"""Kept weights rounded one column after the other, each error repaired by the columns that follow.

GPTQ (Frantar et al. 2022, arXiv 2210.17323) as SparseGPT joins it with pruning: pruned weights are rounded to zero in
their turn. Its update spreads an error over weights that are zero as well, so after every block of columns the kept
weights that follow are solved for once more, each row in its own mask.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from optimum_si.linalg.conjugate_gradient import conjugate_gradient
from optimum_si.linalg.damping import damped, inverse_factor

from .grids import Grid, anchors


#: Columns between two solutions for what follows; groups of weights that share a scale lie within one block.
BLOCK = 32
#: Conjugate gradients of each solution, which starts near its end: 50 lower the error by 0.3% more.
STEPS = 10


def quantized(weight: Tensor, gram: Tensor, grid: Grid, damping: float, mode: str) -> Tensor:
    """The weight on the grid, zeros as they were; each row is the better of :func:`in_turn` and plain rounding.

    Args:
        weight: pruned W, [d_out, d_in], fp32 or fp64.
        gram: H of the inputs, [d_in, d_in]; centered where a bias takes up the mean of the error.
        grid: what to round to.
        damping: fraction of H's diagonal that is added to it.
        mode: "mean" or "channel", as for SparseGPT.

    Raises:
        NumericalError: when H cannot be factorized.
    """
    nearest, repaired = grid.nearest(weight), in_turn(weight, gram, grid, damping, mode)
    better = row_errors(repaired - weight, gram) < row_errors(nearest - weight, gram)
    return torch.where(better[:, None], repaired, nearest)


def row_errors(change: Tensor, gram: Tensor) -> Tensor:
    """Mean squared error of each output, diag(E H E^T), fp64 [d_out]."""
    change = change.to(gram.dtype)
    return ((change @ gram) * change).sum(dim=1)


def in_turn(weight: Tensor, gram: Tensor, grid: Grid, damping: float, mode: str) -> Tensor:
    """Column after column rounded, with the update of those that follow; arguments as for :func:`quantized`."""
    factor = inverse_factor(gram, damping, mode).to(weight.dtype)
    hessian = damped(gram, damping, mode).to(weight.dtype)
    # Columns as rows: each step then reads and writes memory in its order.
    before = weight.T.contiguous()
    kept = before != 0
    current, rounded = before.clone(), torch.zeros_like(before)
    costs = factor.diagonal().square().reciprocal()[:, None]
    columns = len(before)
    group, shared = grid.group(columns), None
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = torch.zeros_like(before[start:stop])
        for column in range(start, stop):
            if shared is None or column % group == 0:
                members = slice(column, column + group)
                shared = _Group.of(grid, current[members] * kept[members], costs[members])
            rounded[column] = shared.rounded(column % group, current[column]) * kept[column]
            row = factor[column, start:stop]
            errors[column - start] = (current[column] - rounded[column]) / row[column - start]
            current[column:stop].addr_(row[column - start :], errors[column - start], alpha=-1)
        if stop < columns:
            current[stop:] -= factor[start:stop, stop:].T @ errors
            current[stop:] = _solved(hessian, rounded[:stop] - before[:stop], before[stop:], current[stop:])
    return rounded.T.contiguous()


@dataclass(eq=False)
class _Group:
    """Weights of each row that share a scale, [d_out] of everything.

    Args:
        grid: that they are rounded to.
        scale: of each row.
        anchor: index of the column that has to hold the lowest code, unless an earlier one does.
        anchored: whether one does.
    """

    grid: Grid
    scale: Tensor
    anchor: Tensor
    anchored: Tensor

    @classmethod
    def of(cls, grid: Grid, columns: Tensor, costs: Tensor) -> "_Group":
        """Of columns [n, d_out], with the best scale by ``costs`` [n, 1] of squared changes."""
        anchor = anchors(columns)
        extreme = columns.gather(0, anchor[None])[0]
        scales = torch.stack([grid.scale(extreme * fraction) for fraction in grid.fractions])
        rounded = (grid.values(grid.codes(columns, scale), scale) for scale in scales)
        losses = torch.stack([((values - columns).square() * costs).sum(dim=0) for values in rounded])
        scale = scales.gather(0, losses.argmin(dim=0)[None])[0]
        # A scale of zero gives nothing but zeros, which need no anchor.
        return cls(grid, scale, anchor, scale == 0)

    def rounded(self, index: int, column: Tensor) -> Tensor:
        """Column ``index`` of the group on the grid."""
        codes = self.grid.codes(column, self.scale)
        codes = torch.where((self.anchor == index) & ~self.anchored, self.grid.lowest, codes)
        self.anchored = self.anchored | (codes == self.grid.lowest)
        return self.grid.values(codes, self.scale)


def _solved(hessian: Tensor, change: Tensor, before: Tensor, start: Tensor) -> Tensor:
    """The best values of columns that are not rounded yet, in the mask of ``before``, given the change of the others.

    Conjugate gradients in coordinates in which every input has unit energy.

    Args:
        hessian: damped H, [d_in, d_in].
        change: of the first columns, [n, d_out].
        before: the others as they were, [d_in - n, d_out].
        start: a first guess, like ``before``.
    """
    first = len(change)
    norms = hessian.diagonal()[first:].sqrt()[:, None]
    matrix = hessian[first:, first:] / norms / norms.T
    mask = (before != 0).to(before.dtype)
    # Distances from `before`, where the target is small: nothing cancels.
    solution = (start - before) * norms * mask
    residual = (-(hessian[first:, :first] @ change) / norms - matrix @ solution) * mask
    solution = conjugate_gradient(matrix.__matmul__, mask, solution, residual, dim=0, iterations=STEPS)
    return before + solution / norms
