"""The choice for a block: what was learned, the shift alone, or the plain method, by held-out loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .learn import InductionSettings, learn_biases, learn_scales
from .problem import BlockProblem, Candidate, Weights


@dataclass(frozen=True, eq=False)
class Choice:
    """What a block is pruned with.

    Args:
        name: "induced" (learned scales and shifts), "shift" (mean compensation, s = 1) or "plain".
        candidate: its scales and shifts; None for "plain".
        plain_loss: held-out relative squared error of the block's output with the plain method; None if not measured.
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
) -> Choice:
    """Learn, and keep what loses least on held-out windows: induction never makes a block worse there.

    Args:
        problem: the block.
        plain: its weights as the plain method prunes them.
        settings: how to learn.
        samples: tokens of each layer's input, [n, d_in], by view name.
        generator: for the order of batches.
    """
    shiftable = settings.shift and any(layer.shift for layer in problem.layers)
    candidates = [("induced", learn_scales(problem, settings, samples, generator))]
    if shiftable:
        candidates.append(("shift", Candidate({}, shifted=True)))
    plain_loss = problem.validation_loss(plain)
    chosen = min((_measured(problem, name, candidate, plain_loss) for name, candidate in candidates), key=_loss)
    if shiftable and not problem.method.keeps_weights and chosen.candidate is not None:
        learned = learn_biases(problem, settings, chosen.candidate, generator)
        chosen = min(chosen, _measured(problem, chosen.name, learned, plain_loss), key=_loss)
    return chosen if _loss(chosen) < plain_loss else Choice("plain", None, plain_loss, plain_loss)


def _measured(problem: BlockProblem, name: str, candidate: Candidate, plain_loss: float) -> Choice:
    return Choice(name, candidate, plain_loss, problem.validation_loss(problem.prune(candidate)))


def _loss(choice: Choice) -> float:
    assert choice.loss is not None
    return choice.loss
