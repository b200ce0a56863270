"""Spectral Norm Loss (Eq. 8)."""

import torch
from torch import Tensor


def schatten_norm(matrix: Tensor, p: int | str, vector: Tensor | None = None) -> Tensor:
    """Schatten-p norm of a matrix, differentiable.

    Args:
        matrix: [d_out, d_in].
        p: 1 (nuclear), 2 (Frobenius) or "inf" (spectral).
        vector: [d_in] estimate of the leading right singular vector, updated in place by one power iteration, so that
            it converges over the steps of training; needed for p = "inf".
    """
    if p == 1:
        return torch.linalg.svdvals(matrix).sum()
    if p == 2:
        return matrix.norm()
    assert vector is not None
    with torch.no_grad():
        left = torch.nn.functional.normalize(matrix @ vector, dim=0)
        vector.copy_(torch.nn.functional.normalize(matrix.T @ left, dim=0))
    return (matrix @ vector).norm()


class SpectralNormLoss:
    """R_p = exp(-alpha * sum_l ||W_l S_l||_p).

    It falls as norms grow, without bound: keep s clamped, or use ``normalized``, ``||WS||_p / ||WS||_F``.

    Args:
        weights: W_l, [d_out, d_in] each; their scaled versions are given to every call in the same order.
        p: 1, 2 or "inf".
        alpha: None means 1 / (sum at the start), so that the loss starts at 1 / e for a model of any size.
        normalized: the scale-free variant.
    """

    def __init__(self, weights: list[Tensor], p: int | str, alpha: float | None, normalized: bool) -> None:
        self.p, self.normalized = p, normalized
        self.vectors: list[Tensor | None] = [None] * len(weights)
        if p == "inf":
            self.vectors = [_leading_vector(weight) for weight in weights]
        self.alpha = alpha if alpha is not None else 1 / max(float(self.total(weights)), 1e-12)

    def total(self, scaled: list[Tensor]) -> Tensor:
        """Sum of the norms of W_l S_l."""
        norms = []
        for matrix, vector in zip(scaled, self.vectors, strict=True):
            norm = schatten_norm(matrix, self.p, vector)
            norms.append(norm / matrix.norm().clamp_min(1e-12) if self.normalized else norm)
        return torch.stack(norms).sum()

    def __call__(self, scaled: list[Tensor]) -> Tensor:
        """R_p, a scalar in (0, 1)."""
        return torch.exp(-self.alpha * self.total(scaled))


def _leading_vector(matrix: Tensor, iterations: int = 20) -> Tensor:
    """Right singular vector of the largest singular value, [d_in], by power iteration from the largest row."""
    vector = matrix[matrix.norm(dim=1).argmax()].detach().clone()
    for _ in range(iterations):
        schatten_norm(matrix.detach(), "inf", vector)
    return vector
