"""Learning an orthogonal matrix: Adam in the tangent basis, Cayley's retraction back onto the group."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .importance import Term, mean_lost


STEPS = 60
#: Root mean square of a column of the first steps' tangent; Cayley's retraction turns by less than pi whatever it is.
_RATE = 2.0
_BETAS = (0.9, 0.95)


def learn(
    terms: Sequence[Term], parts: int, size: int, centered: bool = False, steps: int | None = None
) -> Tensor | None:
    """Q that lowers the fraction of the layers' importance that is pruned.

    Args:
        terms: layers whose weights Q enters, fp32.
        parts: independent rotations.
        size: channels of each.
        centered: Q leaves (1, ..., 1) as it is.
        steps: of gradient descent; None takes :data:`STEPS`.

    Returns:
        fp64 [parts, size, size], orthogonal to the last bits; None where no step lowers it.
    """
    terms, steps = list(terms), STEPS if steps is None else steps
    device = terms[0].weight.device
    identity = torch.eye(size, device=device).expand(parts, size, size).clone()
    rotation, best, lowest = identity, None, mean_lost(terms, identity)
    first = torch.zeros_like(identity)
    second = torch.zeros(parts, 1, 1, device=device)
    for step in range(1, steps + 1):
        loss, gradient = _gradient(terms, rotation)
        if step > 1 and loss < lowest:
            best, lowest = rotation, loss
        tangent = rotation.mT @ gradient
        tangent = _tangent(tangent - tangent.mT, centered)
        first = _BETAS[0] * first + (1 - _BETAS[0]) * tangent
        # One second moment for a whole rotation: entries of their own would bend the direction.
        second = _BETAS[1] * second + (1 - _BETAS[1]) * tangent.square().mean(dim=(1, 2), keepdim=True)
        mean, spread = first / (1 - _BETAS[0] ** step), second / (1 - _BETAS[1] ** step)
        rate = _RATE / math.sqrt(size) * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        move = -rate * mean / spread.sqrt().clamp_min(torch.finfo(spread.dtype).tiny)
        rotation = rotation @ torch.linalg.solve(identity - move / 2, identity + move / 2)
    if mean_lost(terms, rotation) < lowest:
        best = rotation
    return None if best is None else orthogonalized(best.double(), centered)


def orthogonalized(rotation: Tensor, centered: bool = False) -> Tensor:
    """The nearest orthogonal matrix (polar factor), which leaves (1, ..., 1) as it is where ``centered``."""
    if centered:
        mean = torch.full_like(rotation[0], 1 / rotation.shape[-1])
        rotation = _tangent(rotation, True) + mean
    left, _, right = torch.linalg.svd(rotation)
    return left @ right


def _gradient(terms: Sequence[Term], rotation: Tensor) -> tuple[float, Tensor]:
    """Mean lost fraction and its gradient; one layer's graph is in memory at a time."""
    leaf = rotation.clone().requires_grad_()
    total = sum(term.count for term in terms)
    loss = 0.0
    with torch.enable_grad():
        for term in terms:
            lost = term.lost(leaf) * (term.count / total)
            lost.backward()
            loss += float(lost.detach())
    assert leaf.grad is not None
    return loss, leaf.grad


def _tangent(values: Tensor, centered: bool) -> Tensor:
    """What is left of [parts, n, n] once rows and columns have mean 0, where ``centered``."""
    if not centered:
        return values
    values = values - values.mean(dim=-1, keepdim=True)
    return values - values.mean(dim=-2, keepdim=True)
