""" "permutation": orders of channels under which N:M patterns keep more.

Groups of M consecutive inputs keep N weights each: important channels that stand in one group compete, in different
groups they do not (Pool and Yu, "Channel permutations for N:M sparsity", 2021).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.targets import NM, Target
from optimum_si.models.forward.dense_pass import DensePass
from optimum_si.models.forward.layer_inputs import LayerInput
from optimum_si.models.invariances import Basis, Invariances

from .change_basis import permute


#: Rows of scores that an order is looked for on, and entries: the search is quick, the decision is on all rows.
_ROWS, _ENTRIES = 1024, 2**22
_SWEEPS = 256


def permute_channels(
    invariances: Invariances, dense_pass: DensePass, targets: Mapping[str, Target], seed: int
) -> bool:
    """Find orders on the dense model and absorb them. False where none keeps more: without a pattern none does.

    Args:
        targets: of each layer to prune, by name.
        seed: of the search.
    """
    done = False
    residual = None if invariances.residual is None else invariances.residual.basis
    scores: dict[str, Tensor] = {}
    for _, block, layer_inputs in dense_pass.run():
        local = _scores(layer_inputs)
        for bases in (invariances.mlp, invariances.value_heads):
            if (basis := bases.get(block.name)) is not None:
                done |= _permuted(basis, local, targets, seed)
        if residual is not None:
            reading = {reader.view.name for reader in residual.readers}
            scores.update({name: score for name, score in local.items() if name in reading})
    if residual is not None:
        done |= _permuted(residual, scores, targets, seed)
    return done


def kept_fraction(score: Tensor, kept: int, of: int) -> Tensor:
    """Fraction of the score [..., n] that N:M keeps, of all."""
    groups = score.unflatten(-1, (-1, of))
    return groups.topk(kept, dim=-1).values.sum() / score.sum().clamp_min(torch.finfo(score.dtype).tiny)


def best_order(score: Tensor, kept: int, of: int, seed: int = 0, sweeps: int = _SWEEPS) -> Tensor:
    """An order of columns under which N:M keeps no less of the score than in the order that they have.

    Pairs of groups, drawn at random, exchange the two columns that gain most, as long as some do.

    Args:
        score: [rows, n] >= 0; n a multiple of ``of``.
        kept, of: N and M.
        seed: draws the pairs.
        sweeps: at most so many times every group is in one pair.

    Returns:
        int64 [n].
    """
    count = score.shape[1] // of
    generator = torch.Generator().manual_seed(seed)
    order = torch.arange(score.shape[1], device=score.device).view(count, of)
    idle = 0
    for _ in range(sweeps if count > 1 else 0):
        pairs = torch.randperm(count, generator=generator)[: count // 2 * 2].view(2, -1).to(score.device)
        left, right = order[pairs[0]], order[pairs[1]]
        gain, pair = _swap_gains(score[:, left], score[:, right], kept).flatten(1).max(dim=1)
        # Gains within rounding would be exchanged to and fro.
        better = gain > 1e-6 * score.sum() / count
        idle = 0 if bool(better.any()) else idle + 1
        if idle > count:
            break
        row, one, other = torch.nonzero(better).flatten(), pair[better] // of, pair[better] % of
        order[pairs[0][row], one], order[pairs[1][row], other] = right[row, other], left[row, one]
    return order.reshape(-1)


def _swap_gains(left: Tensor, right: Tensor, kept: int) -> Tensor:
    """What is kept more when column i of a left group and j of a right one change places, [pairs, M, M].

    Args:
        left, right: scores of the groups, [rows, pairs, M].
        kept: N.
    """
    (left_sum, left_rest, left_cut), (right_sum, right_rest, right_cut) = _without(left, kept), _without(right, kept)
    after = left_rest.sum(dim=0)[:, :, None] + right_rest.sum(dim=0)[:, None, :]
    after = after + torch.maximum(right[:, :, None, :], left_cut[..., None]).sum(dim=0)
    after = after + torch.maximum(left[..., None], right_cut[:, :, None, :]).sum(dim=0)
    return after - (left_sum + right_sum).sum(dim=0)[:, None, None]


def _without(group: Tensor, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """For groups [rows, pairs, M]: what is kept, and without column i: the N - 1 highest, and the next that a newcomer
    has to beat."""
    ranked, order = group.sort(dim=-1, descending=True)
    rank = order.argsort(dim=-1)
    total = ranked[..., :kept].sum(dim=-1)
    among = rank < kept - 1
    highest = ranked[..., : kept - 1].sum(dim=-1, keepdim=True)
    rest = torch.where(among, total[..., None] - group, highest)
    cut = torch.where(rank < kept, ranked[..., kept : kept + 1], ranked[..., kept - 1 : kept])
    return total, rest, cut


def _permuted(basis: Basis, scores: Mapping[str, Tensor], targets: Mapping[str, Target], seed: int) -> bool:
    """Find an order for a basis and absorb it; False where none keeps more in the layers that read it."""
    readers: list[tuple[Tensor, NM]] = []
    for reader in basis.readers:
        target, score = targets.get(reader.view.name), scores.get(reader.view.name)
        if isinstance(target, NM) and score is not None and basis.size % target.of == 0:
            readers.append((score.unflatten(1, (basis.parts, reader.repeats, basis.size)), target))
    if not readers:
        return False
    orders = [_order_of_part([(score[:, part], target) for score, target in readers], seed) for part in
              range(basis.parts)]  # fmt: skip
    order = torch.stack(orders)
    if bool((order == torch.arange(basis.size, device=order.device)).all()):
        return False
    permute(basis, order)
    return True


def _order_of_part(readers: Sequence[tuple[Tensor, NM]], seed: int) -> Tensor:
    """The order for scores [rows, repeats, size] of each reader, or the identity where that keeps as much."""
    target = readers[0][1]
    normed = [score.flatten(0, 1) / score.sum().clamp_min(torch.finfo(score.dtype).tiny) for score, _ in readers]
    rows = torch.cat(normed)
    wanted = max(min(_ROWS, _ENTRIES // rows.shape[1], len(rows)), 1)
    sample = rows[torch.linspace(0, len(rows) - 1, wanted, device=rows.device).round().long()]
    order = best_order(sample, target.kept, target.of, seed)

    def kept(order: Tensor | slice) -> float:
        return sum(float(kept_fraction(score[..., order], each.kept, each.of)) for score, each in readers)

    identity = torch.arange(rows.shape[1], device=rows.device)
    return order if kept(order) > kept(slice(None)) else identity


def _scores(layer_inputs: Sequence[LayerInput]) -> dict[str, Tensor]:
    """|W| sqrt(H_jj) of each layer, by name."""
    return {
        view.name: view.read().abs().float() * layer_input.moments.diagonal.sqrt().float()
        for layer_input in layer_inputs
        for view in layer_input.views
    }
