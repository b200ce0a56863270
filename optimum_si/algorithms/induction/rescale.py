"""Scales of a pruned layer's inputs and outputs, by least squares on the Gram matrix (Eq. 4 and 9-11).

A scale of Eq. 3 leaves the dense function as it is, because both of its sides carry the same s. Once weights are gone
the sides need not agree any more: what suits the pruned layer best on each is a problem that is quadratic in its
output, so that no forward pass is needed. Both go into the layer's own weights, as the shift goes into its own bias.
"""

import torch
from torch import Tensor

from optimum_si.algorithms.layers import Layer
from optimum_si.algorithms.layerwise.inputs import PairedInput
from optimum_si.linalg.paired_moments import PairedMoments


#: Times that outputs and inputs are scaled in turn.
ROUNDS = 2
#: Pull of the inputs' scales towards 1, in units of the mean curvature.
RIDGE = 0.01
#: Scales stay within [1 / LARGEST, LARGEST].
LARGEST = 5.0
#: Fraction of the dense model's own output, on its own inputs, that is aimed at: a few numbers for each layer cannot
#: over-fit as its weights would.
REPAIR = 0.0


def rescaled(layer: Layer, weight: Tensor, bias: Tensor | None, paired: PairedInput) -> tuple[Tensor, Tensor | None]:
    """Pruned weight and bias with its rows and columns scaled, where that errs less on held-out windows.

    Args:
        layer: dense.
        weight: pruned, [d_out, d_in].
        bias: [d_out], or None.
        paired: inputs of the layer in both models.
    """
    error = paired.held_out_error(layer)
    scaled = _scaled(layer, weight, paired.training)
    bias_with = _bias(layer, scaled, bias, paired.training)
    if not error(scaled, bias_with) < error(weight, bias):
        return weight, bias
    scaled = _scaled(layer, weight, paired.whole)
    return scaled, _bias(layer, scaled, bias, paired.whole)


def _scaled(layer: Layer, weight: Tensor, paired: PairedMoments) -> Tensor:
    moments = paired.moments()
    gram = (moments.transformed(shift=moments.mean) if layer.shift else moments).gram
    assert gram is not None
    gram = gram.to(weight.dtype)
    target = layer.weight @ gram + REPAIR * paired.target_shift(layer.weight, center=layer.shift).to(weight.dtype)
    weight = _rows(weight, gram, target)
    for _ in range(ROUNDS):
        weight = _rows(_columns(weight, gram, target), gram, target)
    return weight


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


def _bias(layer: Layer, weight: Tensor, bias: Tensor | None, paired: PairedMoments) -> Tensor | None:
    """The bias that gives the mean output aimed at; one that may not change stays."""
    if not layer.shift or layer.bias is None:
        return bias
    mean = paired.mean[: weight.shape[1]]
    moved = REPAIR * paired.mean_target_shift(layer.weight) + (layer.weight - weight).double() @ mean
    return layer.bias + moved.to(layer.bias.dtype)
