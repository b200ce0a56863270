"""Masked conjugate gradients for many systems with one matrix at once."""

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    mask: Tensor,
    solution: Tensor,
    residual: Tensor,
    dim: int,
    iterations: int,
    gain: float = 0.0,
) -> Tensor:
    """Solve A x = b for the entries of x in a mask, for each system on its own; the others stay zero.

    Args:
        product: A times a tensor of directions, which has the shape of ``solution``.
        mask: 1 where an entry may change, 0 elsewhere, like ``solution``.
        solution: first guess, zero outside the mask; changed in place.
        residual: b - A x at the first guess, zero outside the mask; changed in place.
        dim: dimension along which the entries of one system lie.
        iterations: largest number of steps.
        gain: stop after a step that lowers x^T A x - 2 b^T x, summed over all systems, by less than this share of what
            all steps have; 0 takes all steps.

    Returns:
        ``solution``.
    """
    smallest = torch.finfo(solution.dtype).tiny
    direction = residual.clone()
    energy = residual.square().sum(dim=dim, keepdim=True)
    gained = 0.0
    for _ in range(iterations):
        image = product(direction) * mask
        step = energy / (direction * image).sum(dim=dim, keepdim=True).clamp_min(smallest)
        solution.addcmul_(direction, step)
        last = float((step * energy).sum())
        gained += last
        if last <= gain * gained:
            break
        residual.addcmul_(image, step, value=-1)
        before, energy = energy, residual.square().sum(dim=dim, keepdim=True)
        direction = residual + direction * (energy / before.clamp_min(smallest))
    return solution
