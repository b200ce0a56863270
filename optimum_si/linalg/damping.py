"""Damping of a Gram matrix, and the Cholesky factor of its inverse."""

import torch
from torch import Tensor

from optimum_si.errors import NumericalError


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
