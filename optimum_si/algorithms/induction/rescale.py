"""Scales of a pruned layer's inputs and outputs, by least squares on the Gram matrix (Eq. 4 and 9-11).

A scale of Eq. 3 leaves the dense function as it is, because both of its sides carry the same s. Once weights are gone
the sides need not agree any more: what suits the pruned layer best on each is a problem that is quadratic in its
output, so that no forward pass is needed. Both go into the layer's own weights, as the shift goes into its own bias.
"""

import torch
from torch import Tensor

from optimum_si.algorithms.layers import Layer


#: Times that outputs and inputs are scaled in turn.
ROUNDS = 2
#: Pull of the inputs' scales towards 1, in units of the mean curvature.
RIDGE = 0.01
#: Scales stay within [1 / LARGEST, LARGEST].
LARGEST = 5.0


def rescaled(layer: Layer, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Pruned weight and bias with its rows and columns scaled to the layer's own dense output.

    Aiming at the dense model's output instead, to repair what earlier layers lost, was measured to do harm: scales can
    follow it only by shrinking what they let through.

    Args:
        layer: dense, with the full Gram matrix of its inputs.
        weight: pruned, [d_out, d_in].
        bias: [d_out], or None; one that may change makes up for the mean that is lost.
    """
    if torch.equal(weight, layer.weight):
        return weight, bias
    gram = layer.scored_moments(shifted=True).gram
    assert gram is not None, "scales are found on the full Gram matrix"
    gram = gram.to(weight.dtype)
    target = layer.weight @ gram
    scaled = _rows(weight, gram, target)
    for _ in range(ROUNDS):
        scaled = _rows(_columns(scaled, gram, target), gram, target)
    if not layer.shift or bias is None:
        return scaled, bias
    return scaled, bias + (weight - scaled) @ layer.mean


def _rows(weight: Tensor, gram: Tensor, target: Tensor) -> Tensor:
    """Each row times what brings it closest to its target, E[T x^T] [d_out, d_in]."""
    wanted = (weight * target).sum(dim=1, keepdim=True)
    energy = ((weight @ gram) * weight).sum(dim=1, keepdim=True)
    factor = torch.where(energy > 0, wanted / energy.clamp_min(torch.finfo(energy.dtype).tiny), 1.0)
    return weight * factor.clamp(1 / LARGEST, LARGEST)


def _columns(weight: Tensor, gram: Tensor, target: Tensor) -> Tensor:
    """All columns times what brings the layer closest to its target: a system of d_in unknowns."""
    curvature = (weight.T @ weight) * gram
    pull = RIDGE * curvature.diagonal().mean()
    if not pull > 0:
        return weight
    curvature.diagonal().add_(pull)
    wanted = (weight * target).sum(dim=0) + pull
    factor, failed = torch.linalg.solve_ex(curvature, wanted)
    if failed or not bool(torch.isfinite(factor).all()):
        return weight
    return weight * factor.clamp(1 / LARGEST, LARGEST)
