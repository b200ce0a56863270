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
    enough: Tensor | None = None,
) -> Tensor:
    """Solve A x = b for the entries of x in a mask, for each system on its own; the others stay zero.

    Args:
        product: A times a tensor of directions, which has the shape of ``solution``.
        mask: 1 where an entry may change, 0 elsewhere, like ``solution``.
        solution: first guess, zero outside the mask; changed in place.
        residual: b - A x at the first guess, zero outside the mask; changed in place.
        dim: dimension along which the entries of one system lie.
        iterations: largest number of steps.
        enough: squared residual at which a system is done, broadcasts; None takes all steps.

    Returns:
        ``solution``.
    """
    smallest = torch.finfo(solution.dtype).tiny
    direction = residual.clone()
    energy = residual.square().sum(dim=dim, keepdim=True)
    for _ in range(iterations):
        if enough is not None and bool((energy <= enough).all()):
            break
        image = product(direction) * mask
        step = energy / (direction * image).sum(dim=dim, keepdim=True).clamp_min(smallest)
        if enough is not None:
            step = step * (energy > enough)  # systems that are done stay where they are
        solution.addcmul_(direction, step)
        residual.addcmul_(image, step, value=-1)
        before, energy = energy, residual.square().sum(dim=dim, keepdim=True)
        direction = residual + direction * (energy / before.clamp_min(smallest))
    return solution
