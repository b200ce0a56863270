"""The hard mask in the forward pass, with a gradient for the scores in the backward pass."""

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.targets import Target


def log_score(score: Tensor) -> Tensor:
    """log of a score >= 0; exact zeros become a large negative number instead of -inf, whose gradient is NaN."""
    return score.clamp_min(torch.finfo(score.dtype).tiny).log()


def straight_through_mask(log_score: Tensor, target: Target, temperature: float) -> Tensor:
    """0/1 mask whose gradient is that of ``sigmoid((log score - log threshold) / temperature)``.

    The threshold stays in the graph: detached, directions that cannot move the mask (all scores of a group times one
    factor) would take most of the gradient.

    Args:
        log_score: [d_out, d_in].
        target: gives groups and thresholds.
        temperature: width of the sigmoid, in units of log score.

    Returns:
        [d_out, d_in], values exactly 0 and 1.
    """
    margin = target.groups(log_score) - target.threshold(log_score)
    soft = torch.sigmoid(margin / temperature)
    hard = (margin.detach() > 0).to(soft.dtype)
    return (hard + (soft - soft.detach())).reshape(log_score.shape)
