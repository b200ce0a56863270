"""Adam with cosine decay over the batches of one block; what was best on held-out windows is kept."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .calls import Batch


BETAS = (0.9, 0.95)
Kept = TypeVar("Kept")


@torch.enable_grad()
def train(
    groups: list[dict[str, Any]],
    batches: Sequence[Batch],
    epochs: int,
    generator: torch.Generator,
    loss: Callable[[Batch], Tensor],
    constrain: Callable[[], None],
    held_out_loss: Callable[[], float],
    keep: Callable[[], Kept],
) -> tuple[Kept | None, float, float]:
    """Train parameters in place.

    Args:
        groups: parameter groups of Adam, each with its learning rate.
        batches: calibration data.
        epochs: passes over it.
        generator: shuffles the batches of each epoch.
        loss: what a batch costs, differentiable in the parameters.
        constrain: brings parameters back to where they may be, after every step.
        held_out_loss: judges the parameters as they are.
        keep: copies what is wanted of the parameters as they are.

    Returns:
        What :attr:`keep` gave after the best epoch, None where none beats the start; the loss at the start; the best.
    """
    start = best = held_out_loss()
    kept: Kept | None = None
    values = [value for group in groups for value in group["params"]]
    if not values:
        return kept, start, best
    optimizer = torch.optim.Adam(groups, betas=BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(epochs * len(batches), 1))
    for _ in range(epochs):
        for index in torch.randperm(len(batches), generator=generator).tolist():
            # Not backward(): whatever else the block holds must be left without gradients.
            gradients = torch.autograd.grad(loss(batches[index]), values, allow_unused=True)
            for value, gradient in zip(values, gradients, strict=True):
                value.grad = gradient
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                constrain()
        now = held_out_loss()
        if now < best:
            kept, best = keep(), now
    return kept, start, best
