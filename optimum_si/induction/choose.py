"""The choice for a block: what was learned, part of it, the shift alone, or the plain method, by held-out loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .learn import InductionSettings, learn_biases, learn_scales
from .problem import BlockProblem, Candidate, Weights


#: How far to go from s = 1 to what was learned: a lower loss of the block is not always one of the model.
SHARES = (0.5, 1.0)


@dataclass(frozen=True, eq=False)
class Choice:
    """What a block is pruned with.

    Args:
        name: "induced" (learned scales and shifts), "shift" (mean compensation, s = 1) or "plain".
        candidate: its scales and shifts; None for "plain".
        plain_loss: held-out loss with the plain method; None if not measured.
        loss: the same with the choice.
    """

    name: str
    candidate: Candidate | None
    plain_loss: float | None = None
    loss: float | None = None


def choose(
    problem: BlockProblem,
    plain: Weights,
    settings: InductionSettings,
    samples: dict[str, Tensor],
    generator: torch.Generator,
    judge: Callable[[Weights], float],
) -> Choice:
    """Learn, and keep what loses least on held-out windows: induction never makes a block worse there.

    Args:
        problem: the block.
        plain: its weights as the plain method prunes them.
        settings: how to learn.
        samples: tokens of each layer's input, [n, d_in], by view name.
        generator: for the order of batches.
        judge: held-out loss of the block, or of the model, with other weights.
    """
    shiftable = settings.shift and any(layer.shift for layer in problem.layers)
    plain_loss = judge(plain)

    def best(name: str, candidates: list[Candidate], *others: Choice) -> Choice:
        found = [Choice(name, entry, plain_loss, judge(problem.prune(entry))) for entry in candidates]
        return min([*others, *found], key=_loss)

    learned = learn_scales(problem, settings, samples, generator)
    chosen = best("induced", [learned.part_of_the_way(share) for share in SHARES])
    if shiftable:
        chosen = best("shift", [Candidate({}, shifted=True)], chosen)
    if shiftable and not problem.method.keeps_weights and chosen.candidate is not None:
        with_biases = learn_biases(problem, settings, chosen.candidate, generator)
        chosen = best(chosen.name, [with_biases], chosen)
    return chosen if _loss(chosen) < plain_loss else Choice("plain", None, plain_loss, plain_loss)


def _loss(choice: Choice) -> float:
    assert choice.loss is not None
    return choice.loss
