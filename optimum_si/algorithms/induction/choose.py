"""The choice for a block: what was learned, part of it, the shift alone, or the plain method, by held-out loss."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockProblem, Candidate, Weights

from .learn import InductionSettings, changed, learn_biases, learn_scales


#: How far to go from s = 1 to what was learned: a lower loss of the block is not always one of the model.
SHARES = (0.5, 1.0)

#: A choice has to lower the plain method's held-out loss by this share: less is noise, and a wrong choice costs more.
MARGIN = 0.01


@dataclass(frozen=True, eq=False)
class Choice:
    """What a block is pruned with.

    Args:
        name: "induced" (learned scales and shifts), "shift" (mean compensation, s = 1) or "plain".
        candidate: its scales and shifts; None for "plain".
        plain_loss: held-out loss with the plain method; None if not measured.
        loss: the same with the choice.
        weights: pruned by it; None for the choice of an earlier run.
    """

    name: str
    candidate: Candidate | None
    plain_loss: float | None = None
    loss: float | None = None
    weights: Weights | None = field(default=None, repr=False)


def choose(
    problem: BlockProblem,
    plain: Weights,
    settings: InductionSettings,
    samples: dict[str, Tensor],
    generator: torch.Generator,
    judge: Callable[[Weights], float],
    biases: bool = True,
) -> Choice:
    """Learn, and keep what loses least on held-out windows: induction never makes a block worse there.

    Args:
        problem: the block.
        plain: its weights as the plain method prunes them.
        settings: how to learn.
        samples: tokens of each layer's input, [n, d_in], by view name.
        generator: for the order of batches.
        judge: held-out loss of the block, or of the model, with other weights.
        biases: also learn biases for weights that the method changed.
    """
    shiftable = settings.shift and any(layer.shift for layer in problem.layers)
    plain_loss = judge(plain)

    def measured(name: str, candidate: Candidate, weights: Weights) -> Choice:
        return Choice(name, candidate, plain_loss, judge(weights), weights)

    learned = learn_scales(problem, settings, samples, generator)
    candidates = [("induced", learned.part_of_the_way(share)) for share in SHARES]
    if shiftable:
        candidates.append(("shift", Candidate({}, shifted=True)))
    chosen = min((measured(name, entry, problem.prune(entry)) for name, entry in candidates), key=_loss)
    if biases and shiftable and not problem.method.keeps_weights:
        assert chosen.candidate is not None and chosen.weights is not None
        changes = learn_biases(problem, settings, chosen.weights, generator)
        with_biases = replace(chosen.candidate, bias_change=changes)
        chosen = min(chosen, measured(chosen.name, with_biases, changed(chosen.weights, changes)), key=_loss)
    clearly_better = _loss(chosen) < (1 - MARGIN) * plain_loss
    return chosen if clearly_better else Choice("plain", None, plain_loss, plain_loss, plain)


def _loss(choice: Choice) -> float:
    assert choice.loss is not None
    return choice.loss
