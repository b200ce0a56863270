"""Masks refined by swaps: a kept weight changes places with a pruned one of its row, or N:M group, while that helps.

Everything is read off the Gram matrix. With V the pruned weight and R = C - V H, C what V H should be, taking out j
(by ``a = -v_j``) and putting in k (by ``d``) changes a row's error by

    a^2 H_jj - 2 a r_j + d^2 H_kk - 2 d r_k + 2 a d H_jk.
"""

import torch
from torch import Tensor


#: Steps at most; each swaps one pair in every row that it helps.
STEPS = 400
#: Weights of a group that may go in one step, the cheapest; all are looked at where none of them helps.
SHORTLIST = 8
#: Pairs looked at together, which bounds memory.
PAIRS = 2**22
#: A swap has to lower the error by this many units of rounding of the row's energy.
NOISE = 16


@torch.no_grad()
def swapped(
    pruned: Tensor, target_gram: Tensor, gram: Tensor, allowed: Tensor, size: int, values: Tensor | None = None
) -> Tensor:
    """The pruned weight after the best swap of each row, again and again, until none lowers the row's error.

    Args:
        pruned: V, [d_out, d_in].
        target_gram: C, [d_out, d_in]; W H where the target is the layer's own dense output.
        gram: H, [d_in, d_in].
        allowed: bool [d_out, d_in], False where no weight may be kept.
        size: consecutive columns within which weights change places; divides d_in.
        values: what each weight is when it is put in, [d_out, d_in]; None is the value that lowers the error most.

    Returns:
        [d_out, d_in], with as many non-zeros as V in each group. Weights that are not swapped stay as they are.
    """
    gram = gram.to(pruned.dtype)
    pruned = pruned.contiguous()  # weights of a Conv1D are read transposed
    allowed = (allowed & (gram.diagonal() > 0)).contiguous()
    if values is not None:
        values = values.contiguous()
        allowed = allowed & (values != 0)
    result, residual = pruned.clone(), target_gram.to(pruned.dtype) - pruned @ gram
    inside = _within_groups(gram, size)
    kept = max(int((result.view(-1, size) != 0).sum(dim=1).max()), 1)  # of no group more
    energy = (target_gram * pruned).sum(dim=1).abs() + (residual * pruned).sum(dim=1).abs()
    least = energy * (NOISE * torch.finfo(pruned.dtype).eps)
    every = torch.arange(len(pruned), device=pruned.device)
    rows, exhaustive = every, torch.zeros_like(every, dtype=torch.bool)  # rows not done; those to look at in full
    for _ in range(STEPS):
        found = torch.empty(len(rows), 4, dtype=torch.float64, device=pruned.device)
        for part, shortlist in ((exhaustive, kept), (~exhaustive, min(SHORTLIST, size))):
            for some in torch.nonzero(part)[:, 0].split(max(PAIRS // (shortlist * len(gram)), 1)):
                of = rows[some]
                own = None if values is None else values[of]
                found[some] = best_swap(result[of], residual[of], inside, allowed[of], shortlist, own)
        helps = found[:, 0] < -least[rows]
        moved, out, into = rows[helps], found[helps, 1].long(), found[helps, 2].long()
        change_out, change_in = -result[moved, out], found[helps, 3].to(pruned.dtype)
        result[moved, out] = 0
        result[moved, into] = change_in
        residual[moved] -= change_out[:, None] * gram[out] + change_in[:, None] * gram[into]
        going_on = helps | (~exhaustive & (kept > SHORTLIST))
        rows, exhaustive = rows[going_on], ~helps[going_on]
        if not len(rows):
            break
    return result


def best_swap(
    pruned: Tensor, residual: Tensor, inside: Tensor, allowed: Tensor, shortlist: int, values: Tensor | None
) -> Tensor:
    """For each row, the swap that lowers its error most.

    Args:
        pruned: V, [rows, d_in].
        residual: R, [rows, d_in].
        inside: H within each group, [groups, size, size].
        allowed: bool [rows, d_in].
        shortlist: so many weights of each group are tried for taking out, those that cost least by themselves.
        values: of weights that are put in, [rows, d_in], or None for the best.

    Returns:
        fp64 [rows, 4]: change of the error (infinite where there is no pair), column that goes, column that comes,
        and its value.
    """
    groups, size, _ = inside.shape
    weight, slope = pruned.view(-1, groups, size), residual.view(-1, groups, size)
    diagonal = inside.diagonal(dim1=1, dim2=2)
    infinite = torch.tensor(float("inf"), dtype=pruned.dtype, device=pruned.device)
    cost = torch.where(weight != 0, weight.square() * diagonal + 2 * weight * slope, infinite)
    cost, out = cost.topk(shortlist, dim=2, largest=False)  # [rows, groups, shortlist]
    between = inside[torch.arange(groups, device=pruned.device)[None, :, None], out]  # [rows, groups, shortlist, size]
    # What is left for k to gain once j is gone.
    slope = slope[:, :, None] + weight.gather(2, out)[..., None] * between
    if values is None:
        value = slope / diagonal[:, None].clamp_min(torch.finfo(pruned.dtype).tiny)
    else:
        value = values.view(-1, groups, 1, size).expand_as(slope)
    change = cost[..., None] + value * (value * diagonal[:, None] - 2 * slope)
    free = ((weight == 0) & allowed.view_as(weight))[:, :, None] & (value != 0)
    change = torch.where(free, change, infinite).flatten(1)
    change, best = change.min(dim=1)
    pair, into = best // size, best % size
    group = pair // shortlist
    going = out.flatten(1).gather(1, pair[:, None])[:, 0] + group * size
    coming = value.flatten(1).gather(1, best[:, None])[:, 0]
    return torch.stack([change.double(), going.double(), (into + group * size).double(), coming.double()], dim=1)


def _within_groups(gram: Tensor, size: int) -> Tensor:
    """The square blocks along the diagonal of [d_in, d_in], as [groups, size, size]."""
    groups = len(gram) // size
    return gram.view(groups, size, groups, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
