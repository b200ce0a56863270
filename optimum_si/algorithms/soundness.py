"""Whether what became of a layer can be kept: finite as it is stored, with exactly the zeros that were asked for."""

from dataclasses import replace

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.targets import NM, Target, Unstructured
from optimum_si.linalg.finite import all_finite


def fault(
    target: Target, dense: Tensor, weight: Tensor, bias: Tensor | None, counts_rows: bool, more: bool = False
) -> str:
    """What is wrong with a pruned layer, in words; "" for nothing.

    Args:
        target: how much goes, and where.
        dense: the weight before, [d_out, d_in]; its own zeros stay.
        weight: pruned and rounded to what is stored, [d_out, d_in].
        bias: as stored, [d_out], or None.
        counts_rows: whether each row of a target of group "row" is met, or the layer as a whole.
        more: whether it may have further zeros, as of weights that are rounded to a grid.
    """
    if not all_finite((weight, bias)):
        return "values beyond the range of its dtype"
    zeros, fewest, most = _counts(target, dense, weight, counts_rows)
    if bool((zeros < fewest).any()) or (not more and bool((zeros > most).any())):
        return f"{int(zeros.sum()):,} zeros where {int(fewest.sum()):,} were asked for"
    return ""


def with_exact_zeros(target: Target, dense: Tensor, weight: Tensor, counts_rows: bool) -> Tensor:
    """The weight without more zeros than were asked for: dense values come back in their place, the largest first.

    Fits leave nothing of weights whose input is always zero, and a small dtype rounds the smallest values to zero;
    both are zeros beyond those asked for.

    Args:
        target, dense, counts_rows: as for :func:`fault`.
        weight: pruned, as stored, [d_out, d_in].
    """
    zeros, _, most = _counts(target, dense, weight, counts_rows)
    spare = zeros - most
    if not bool((spare > 0).any()):
        return weight
    groups = _counted(target, counts_rows).groups
    candidates = groups((weight == 0) & (dense != 0))
    magnitude = groups(dense.abs()).masked_fill(~candidates, -1)
    rank = magnitude.argsort(dim=1, descending=True, stable=True).argsort(dim=1, stable=True)
    restored = (rank < spare[:, None]) & candidates
    return torch.where(restored.reshape(weight.shape), dense, weight)


def _counts(target: Target, dense: Tensor, weight: Tensor, counts_rows: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros of each group, the fewest that it has to have, and the most that it may have, int64 [groups]."""
    counted = _counted(target, counts_rows)
    zeros, before = ((counted.groups(values) == 0).sum(dim=1) for values in (weight, dense))
    pruned = counted.pruned(counted.groups(dense).shape[1])
    fewest = before.clamp_min(pruned)
    # Methods that count over blocks of columns leave zeros that were there in some, and make as many in others.
    exact = isinstance(target, NM) or counts_rows
    return zeros, fewest, fewest if exact else before + pruned


def _counted(target: Target, counts_rows: bool) -> Target:
    """The target over the groups in which its zeros are exact."""
    return target if counts_rows or not isinstance(target, Unstructured) else replace(target, group="layer")
