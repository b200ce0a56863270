"""The hard mask in the forward pass, with a gradient for the scores in the backward pass."""

from typing import Any

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.targets import COUNTED, Target


def log_score(score: Tensor) -> Tensor:
    """log of a score >= 0; exact zeros become a large negative number instead of -inf, whose gradient is NaN."""
    return score.clamp_min(torch.finfo(score.dtype).tiny).log()


def straight_through_mask(log_score: Tensor, target: Target, temperature: float) -> Tensor:
    """0/1 mask whose gradient is that of ``sigmoid((log score - log threshold) / temperature)``.

    The threshold, midway between its two neighbors, takes part in the gradient: left out, directions that cannot move
    the mask (all scores of a group times one factor) would take most of it.

    Args:
        log_score: [d_out, d_in].
        target: gives groups and thresholds.
        temperature: width of the sigmoid, in units of log score.

    Returns:
        [d_out, d_in], values exactly 0 and 1.
    """
    return _StraightThrough.apply(log_score, target, temperature)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_score: Tensor, target: Target, temperature: float) -> Tensor:
        groups = target.groups(log_score)
        ctx.across = groups.shape[1] <= COUNTED
        values, dim = (_across(groups), 0) if ctx.across else (groups, 1)
        pruned, kept = (neighbor.unsqueeze(dim) for neighbor in target.neighbors(log_score))
        margin = values - (pruned + kept) / 2
        hard = (margin > 0).to(log_score.dtype)
        if ctx.needs_input_grad[0]:
            soft = margin.div_(temperature).sigmoid_()
            slope = torch.addcmul(soft, soft, soft, value=-1).div_(temperature)
            ctx.save_for_backward(slope, values, pruned, kept)
        return (_along(hard) if ctx.across else hard).reshape(log_score.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        slope, values, pruned, kept = ctx.saved_tensors
        if ctx.across:
            result, dim = _across(gradient.reshape(values.shape[::-1])).mul_(slope), 0
        else:
            result, dim = gradient.reshape(values.shape) * slope, 1
        of_threshold = result.sum(dim=dim, keepdim=True) / 2
        for neighbor in (pruned, kept):
            at = (values == neighbor).to(values.dtype)
            result.addcmul_(at, of_threshold / at.sum(dim=dim, keepdim=True).clamp_min_(1), value=-1)
        return (_along(result) if ctx.across else result).reshape(gradient.shape), None, None


def _across(groups: Tensor) -> Tensor:
    """Groups [g, n] as [n, g]: where n is small, whatever combines the values of a group then runs along memory."""
    return torch.stack(groups.unbind(1))


def _along(values: Tensor) -> Tensor:
    """The reverse of :func:`_across`."""
    return torch.stack(values.unbind(0), dim=1)
