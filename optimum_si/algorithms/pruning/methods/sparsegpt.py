"""SparseGPT (Frantar & Alistarh 2023, arXiv 2301.00774): prune a column, repair with those that follow."""

from typing import Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.method import PruningMethod, Settings
from optimum_si.algorithms.pruning.targets import NM, Target, Unstructured
from optimum_si.linalg.damping import inverse_factor, safe_damping
from optimum_si.linalg.moments import Moments
from optimum_si.linalg.units import unit_of


class SparseGPT(PruningMethod):
    """Score ``w^2 / U_jj^2`` with U the upper Cholesky factor of the damped H^-1, times s_j^2 (Eq. 11).

    An unstructured target ranks the weights of ``block_size`` columns over all rows together; N:M ranks each group.
    Every weight that goes is compensated by the weights to its right, exactly on H.
    """

    needs_gram = True
    counts_rows = False
    keeps_weights = False

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings)
        self._factors: WeakKeyDictionary[Moments, Tensor] = WeakKeyDictionary()

    def cautious(self, factor: float) -> Self:
        cautious = super().cautious(factor)
        cautious._factors = WeakKeyDictionary()
        return cautious

    def score(self, weight: Tensor, moments: Moments) -> Tensor:
        factor = self._factor(moments).to(weight.dtype)
        # Inputs that are always zero carry nothing: their weights go first.
        alive = moments.diagonal > 0
        return (weight / factor.diagonal()).square() * alive

    def scaled_score(
        self, weight: Tensor, moments: Moments, scale: Tensor | None = None, row_scale: Tensor | None = None
    ) -> Tensor:
        # As `prune` takes s up: on transformed moments the damping, which is not scaled with them, would count more.
        score = self.score(weight, moments)
        if scale is not None:
            score = score * scale.to(score.dtype).square()
        return score if row_scale is None else score * row_scale[:, None].to(score.dtype).square()

    def prune(
        self,
        weight: Tensor,
        moments: Moments,
        target: Target,
        scale: Tensor | None = None,
        row_scale: Tensor | None = None,
    ) -> Tensor:
        factor = self._factor(moments).to(weight.dtype)
        importance = factor.diagonal().reciprocal() if scale is None else scale.to(weight.dtype) / factor.diagonal()
        importance = importance * (moments.diagonal > 0)
        rows, columns = weight.shape
        was_zero = weight == 0
        unit = unit_of(weight)
        weight = weight / unit
        gone = 0
        size = self.settings.block_size
        if isinstance(target, NM):  # groups must not straddle two blocks
            size = max(size // target.of, 1) * target.of
        for start in range(0, columns, size):
            stop = min(start + size, columns)
            block = weight[:, start:stop]
            dead = was_zero[:, start:stop]
            if isinstance(target, Unstructured):
                # Blocks that were sparser than their share leave less to prune for those that follow.
                count = min(max(target.pruned(rows * stop) - gone, 0), rows * (stop - start))
                ranked = block if row_scale is None else block * row_scale[:, None].to(block.dtype)
                zeroed = _lowest(ranked, importance[start:stop], dead, count) | dead
            else:
                zeroed = dead.clone()
            # Columns as rows: each step then reads and writes memory in its order.
            columns_left = block.T.contiguous()
            errors = torch.empty_like(columns_left)
            for column in range(stop - start):
                if isinstance(target, NM) and column % target.of == 0:
                    group = slice(column, column + target.of)
                    score = (columns_left[group].T * importance[start:stop][group]).square()
                    zeroed[:, group] |= ~target.keep(score.masked_fill_(dead[:, group], -1))
                row = factor[start + column, start:stop]
                torch.mul(columns_left[column], zeroed[:, column] / row[column], out=errors[column])
                # Also sets the pruned column itself to zero, up to rounding: made exact below.
                columns_left[column:].addr_(row[column:], errors[column], alpha=-1)
            block.copy_(columns_left.T)
            block.masked_fill_(zeroed, 0)
            gone += int(zeroed.sum())
            weight[:, stop:] -= errors.T @ factor[start:stop, stop:]
        return weight.mul_(unit)

    def _factor(self, moments: Moments) -> Tensor:
        """U, [d_in, d_in]; one for all that reads an input, while its moments are there."""
        if moments not in self._factors:
            damping = safe_damping(self.settings.damping, moments.count, len(moments.diagonal))
            self._factors[moments] = inverse_factor(moments.gram, damping, self.settings.damping_mode)
        return self._factors[moments]


def _lowest(block: Tensor, importance: Tensor, dead: Tensor, count: int) -> Tensor:
    """bool like ``block``: its ``count`` least important weights over all rows, those already zero first."""
    score = (block * importance).square().masked_fill(dead, -1).reshape(1, -1)
    return ~Unstructured(count / score.numel()).keep(score).reshape(block.shape)


METHOD = SparseGPT
