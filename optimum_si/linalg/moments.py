"""Moments of a layer's inputs: accumulation that neither batch size nor a large mean disturbs, and the fast update."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


#: Panels that a Gram matrix is made of, from this many columns on.
PANELS, SMALLEST_SPLIT = 4, 512


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of n input tokens x of one layer (design: H = E[x x^T], paper Eq. 9).

    Args:
        count: n, padding left out.
        mean: mu, fp64 [d_in].
        diagonal: diag H, fp64 [d_in].
        gram: H, fp64 [d_in, d_in], or None when only the diagonal was collected.
        scale: product of the scales applied by :meth:`transformed`, fp64 [d_in].
    """

    count: int
    mean: Tensor
    diagonal: Tensor
    gram: Tensor | None
    scale: Tensor

    def transformed(self, scale: Tensor | None = None, shift: Tensor | None = None) -> "Moments":
        """Moments of x' = D (x - delta), exactly and without a forward pass (paper, Eq. 9-11).

        H' = D (H - delta mu^T - mu delta^T + delta delta^T) D; the diagonal alone costs O(d_in).

        Args:
            scale: diagonal of D, [d_in], positive; None is the identity.
            shift: delta, [d_in]; None is zero.
        """
        mean, diagonal, gram, total = self.mean, self.diagonal, self.gram, self.scale
        if shift is not None:
            shift = shift.to(mean.dtype)
            diagonal = (diagonal - 2 * shift * mean + shift.square()).clamp_min(0)
            if gram is not None:
                cross = torch.outer(shift, mean)
                gram = gram - cross - cross.T + torch.outer(shift, shift)
            mean = mean - shift
        if scale is not None:
            scale = scale.to(mean.dtype)
            mean, diagonal, total = mean * scale, diagonal * scale.square(), total * scale
            gram = None if gram is None else gram * scale * scale[:, None]
        return replace(self, mean=mean, diagonal=diagonal, gram=gram, scale=total)

    def is_finite(self) -> bool:
        """False when a token held NaN or infinity."""
        return bool(torch.isfinite(self.diagonal).all())


class MomentAccumulator:
    """Adds up token batches by Chan's centered update, so that large means do not cancel.

    Args:
        features: d_in.
        gram: collect the full H, or only its diagonal.
    """

    def __init__(self, features: int, gram: bool, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.mean = torch.zeros(features, dtype=torch.float64, device=device)
        # Sum of centered squares: [d_in, d_in] or its diagonal [d_in].
        self.centered = torch.zeros((features, features) if gram else features, dtype=torch.float64, device=device)

    def add(self, tokens: Tensor) -> None:
        """Add tokens [n, d_in] of any float dtype. fp32 tokens are multiplied in fp32, after centering."""
        if not len(tokens):
            return
        added = len(tokens)
        mean = tokens.mean(dim=0, dtype=torch.float64)
        # Half precision is widened; fp32 products of *centered* values are exact enough, sums across batches are fp64.
        wide = tokens if tokens.dtype == torch.float64 else tokens.float()
        residual = wide - mean.to(wide.dtype)
        total = self.count + added
        difference = mean - self.mean
        weight = self.count * added / total
        if self.centered.ndim == 2:
            add_gram(self.centered, residual)
            self.centered.addr_(difference, difference, alpha=weight)
        else:
            self.centered += residual.square_().sum(dim=0, dtype=torch.float64) + weight * difference.square()
        self.mean += difference * (added / total)
        self.count = total

    def moments(self) -> Moments:
        """The uncentered moments of all tokens added so far."""
        if self.centered.ndim == 2:
            mirror(self.centered)
        covariance = self.centered / max(self.count, 1)
        gram = covariance + torch.outer(self.mean, self.mean) if covariance.ndim == 2 else None
        diagonal = covariance + self.mean.square() if gram is None else gram.diagonal().clone()
        return Moments(self.count, self.mean.clone(), diagonal, gram, torch.ones_like(self.mean))


def add_gram(total: Tensor, tokens: Tensor) -> None:
    """Add X^T X to a sum in place, its upper part alone: panels of columns save a third of the products.

    Args:
        total: fp64 [d, d]; what is below the panels' diagonal blocks is left as it is, see :func:`mirror`.
        tokens: X, [n, d], multiplied in its own dtype.
    """
    size = len(total)
    width = size if size < SMALLEST_SPLIT else -(-size // PANELS)
    for start in range(0, size, width):
        total[start : start + width, start:] += tokens[:, start : start + width].T @ tokens[:, start:]


def mirror(total: Tensor) -> None:
    """Make a sum of :func:`add_gram` symmetric, in place."""
    upper = total.triu(1)
    total.triu_()
    total += upper.T
