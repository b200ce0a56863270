"""What the weights of a block become: scales chosen, kept weights fitted, the block refined."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockProblem, Candidate, Weights
from optimum_si.algorithms.induction.choose import MARGIN, Choice, choose
from optimum_si.algorithms.induction.held_out_loss import ModelJudge
from optimum_si.algorithms.quantization.rounding import Rounder
from optimum_si.algorithms.reconstruction.method import Reconstructed
from optimum_si.algorithms.reconstruction.sequence import Fit, fit_block
from optimum_si.algorithms.refinement.refine import refine
from optimum_si.config.si_config import SIConfig
from optimum_si.models.forward.layer_inputs import Site


#: The plain method: no scale, and biases as they are.
PLAIN = Candidate({}, shifted=False)


@dataclass(frozen=True, eq=False)
class Decision:
    """The end of all choices for one block.

    Args:
        choice: which scales and shifts.
        weights: of every layer, pruned.
        plain: the same without induction; None in a run without it.
        apart: the same masks, fitted without the held-out windows; None where layers are not fitted in sequence.
        others: refined norms, by name inside the block.
        fits: how each layer was fitted, where layers were fitted one after the other.
        refined: held-out error of the block's output before and after refinement; None without it.
    """

    choice: Choice
    weights: Weights
    plain: Weights | None = None
    apart: Weights | None = None
    others: dict[str, Tensor] = field(default_factory=dict)
    fits: dict[str, Fit] = field(default_factory=dict)
    refined: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Decider:
    """Decides on one block after another.

    Args:
        config: the recipe.
        fitter: fits the layers of a block one after the other; None leaves them as the method does.
        judge: chooses by what the whole model loses; None chooses by the block's own output.
        rounder: rounds what is kept to the grid of an export; None leaves it as it is.
    """

    config: SIConfig
    fitter: Reconstructed | None
    judge: ModelJudge | None
    rounder: Rounder | None = None

    def __call__(
        self,
        number: int,
        problem: BlockProblem,
        sites: Sequence[Site],
        samples: dict[str, Tensor],
        saved: Choice | None,
    ) -> Decision:
        """Weights of block ``number``; ``saved`` is an earlier choice, taken up instead of learning.

        Args:
            number: of the block.
            problem: the block.
            sites: its input activations, in forward order.
            samples: tokens of each layer's input, [n, d_in], by view name.
            saved: scales of an earlier run.
        """
        if not problem.layers:
            return Decision(Choice("plain", None), {})
        choice = self._chosen(number, problem, samples, saved, self._generator(number))
        decision = (
            self._at_once(problem, choice)
            if self.fitter is None
            else self._in_sequence(number, problem, sites, choice)
        )
        if self.config.refine_epochs:
            # A generator anew: whether scales were learned before or taken up makes no difference.
            apart, epochs = decision.apart or decision.weights, self.config.refine_epochs
            refined = refine(problem, decision.weights, apart, epochs, self._generator(number))
            losses = refined.loss_before, refined.loss_after
            decision = replace(decision, weights=refined.weights, others=refined.others, refined=losses)
        if self.rounder is None:
            return decision
        rounded = self.rounder(problem, sites, decision.weights, decision.others, decision.choice.candidate)
        return replace(decision, weights=rounded)

    def _generator(self, number: int) -> torch.Generator:
        """Each block draws from its own, so that its result does not depend on how others were treated."""
        return torch.Generator().manual_seed(self.config.seed * 65_537 + number)

    def _chosen(
        self,
        number: int,
        problem: BlockProblem,
        samples: dict[str, Tensor],
        saved: Choice | None,
        generator: torch.Generator,
    ) -> Choice:
        induction = self.config.induction
        if induction is None:
            return Choice("plain", None)
        if saved is not None:
            return saved
        plain = problem.prune(PLAIN)
        biases = self.fitter is None  # fits give layers biases of their own
        return choose(
            problem,
            plain,
            induction,
            samples,
            generator,
            lambda weights: self._judged(number, problem, weights),
            biases,
        )

    def _at_once(self, problem: BlockProblem, choice: Choice) -> Decision:
        """Weights as the method gives them, with the chosen scales."""
        plain = choice.weights if choice.candidate is None else None
        plain = plain or problem.prune(PLAIN)
        if choice.candidate is None:
            return Decision(choice, plain, plain if self.config.induction else None)
        return Decision(choice, choice.weights or problem.prune(choice.candidate), plain)

    def _in_sequence(self, number: int, problem: BlockProblem, sites: Sequence[Site], choice: Choice) -> Decision:
        """Layers fitted one after the other; chosen scales have to prove themselves again on what that gives."""
        assert self.fitter is not None
        share = None if self.config.repair == "auto" else float(self.config.repair)
        apart = self.config.refine_epochs > 0
        fitted = fit_block(problem, sites, self.fitter, PLAIN, share, apart)
        plain = fitted.weights
        if self.config.induction is None:
            return Decision(choice, plain, apart=fitted.apart, fits=fitted.fits)
        plain_loss = self._judged(number, problem, plain)
        without = Decision(Choice("plain", None, plain_loss, plain_loss), plain, plain, fitted.apart, fits=fitted.fits)
        if choice.candidate is None or not choice.candidate.scales:
            return without
        fitted = fit_block(problem, sites, self.fitter, choice.candidate, share, apart)
        loss = self._judged(number, problem, fitted.weights)
        if loss >= (1 - MARGIN) * plain_loss:
            return without
        chosen = Choice("induced", choice.candidate, plain_loss, loss)
        return Decision(chosen, fitted.weights, plain, fitted.apart, fits=fitted.fits)

    def _judged(self, number: int, problem: BlockProblem, weights: Weights) -> float:
        if self.judge is None:
            return problem.validation_loss(weights)
        return self.judge.loss(number, problem, weights)
