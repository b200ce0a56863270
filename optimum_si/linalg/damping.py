"""Damping of a Gram matrix, and the Cholesky factor of its inverse."""

import torch
from torch import Tensor

from optimum_si.errors import NumericalError


#: With fewer tokens for each column a Gram matrix is half noise, which fits take for structure.
TOKENS_PER_COLUMN = 2
#: Damping that such a fit has at least. On fresh tokens it takes a third off the error where the spectrum is flat, and
#: adds a twentieth where it is steep.
SAFE_DAMPING = 0.1


def safe_damping(damping: float, tokens: int, columns: int) -> float:
    """The damping of a fit, as a fraction of the diagonal: larger where tokens are few; 0 asks for none and stays.

    Args:
        damping: as it was asked for.
        tokens: that the Gram matrix is the mean of.
        columns: d_in.
    """
    return max(damping, SAFE_DAMPING) if damping and tokens < TOKENS_PER_COLUMN * columns else damping


def damped(gram: Tensor, damping: float, mode: str) -> Tensor:
    """H with a larger diagonal, 1 where inputs are always zero.

    Args:
        gram: H, [d_in, d_in].
        damping: fraction of the diagonal that is added to it.
        mode: "mean", the same for all channels, or "channel", each by its own fraction.
    """
    diagonal = gram.diagonal()
    filled = gram + torch.diag((diagonal == 0).to(gram.dtype))
    extra = diagonal.mean().expand_as(diagonal) if mode == "mean" else filled.diagonal()
    return filled + torch.diag(extra * damping)


def inverse_factor(gram: Tensor | None, damping: float, mode: str) -> Tensor:
    """U with H^-1 = U^T U, U upper triangular [d_in, d_in], H damped.

    fp32 first; fp64 where that fails; then ten and a hundred times the damping. Arguments as for :func:`damped`.

    Raises:
        NumericalError: when none of these gives a factor.
    """
    assert gram is not None, "the factor needs the full Gram matrix"
    for factor, dtype in ((1, torch.float32), (1, torch.float64), (10, torch.float64), (100, torch.float64)):
        lower, failed = torch.linalg.cholesky_ex(damped(gram, damping * factor, mode).to(dtype))
        if failed:
            continue
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed and bool(torch.isfinite(upper).all()):
            return upper
    raise NumericalError(
        f"the Gram matrix of its inputs ({len(gram)} columns) cannot be factorized, even with "
        f"damping={100 * damping:g}: use more calibration data, a larger damping, or method='wanda'."
    )
