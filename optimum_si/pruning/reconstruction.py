"""Fitting the weights that are kept to the dense layer's output, on the Gram matrix alone (design 1.7).

``exact`` keeps the mask of a method and solves least squares for what is kept, row by row. ``admm`` also looks for a
better mask (Boza 2024, arXiv 2401.02938; ALPS, arXiv 2406.07831) and keeps the better of both.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..statistics import Moments
from .base import PruningMethod, Settings
from .targets import NM, Target, Unstructured


#: Steps of ADMM, and over how many of them the zeros become as many as asked for.
STEPS, GRADUAL = 30, 20
#: Weight of the constraint, in coordinates in which every input has unit energy.
PENALTY = 1.0
MOST_ITERATIONS = 200


class Reconstructed(PruningMethod):
    """A method whose kept weights are fitted afterwards.

    Args:
        method: finds the mask.
        mask_search: also look for a mask by ADMM.
        settings: its damping is that of the fit.
    """

    needs_gram = True
    keeps_weights = False

    def __init__(self, method: PruningMethod, mask_search: bool, settings: Settings) -> None:
        super().__init__(settings)
        self.method, self.mask_search = method, mask_search
        self.ranks_rows_together = method.ranks_rows_together  # type: ignore[misc]

    def score(self, weight: Tensor, moments: Moments) -> Tensor:
        return self.method.score(weight, moments)

    def scaled_score(
        self, weight: Tensor, moments: Moments, scale: Tensor | None = None, row_scale: Tensor | None = None
    ) -> Tensor:
        return self.method.scaled_score(weight, moments, scale, row_scale)

    def prune(
        self,
        weight: Tensor,
        moments: Moments,
        target: Target,
        scale: Tensor | None = None,
        row_scale: Tensor | None = None,
    ) -> Tensor:
        assert moments.gram is not None, "reconstruction needs the full Gram matrix"
        pruned = self.method.prune(weight, moments, target, scale, row_scale)
        fit = Normalised.of(weight, moments.gram, self.settings.damping)
        best = fit.exact(pruned != 0, fit.into(pruned))
        if self.mask_search:
            importance = torch.ones_like(fit.norms) if scale is None else scale.to(fit.norms.dtype)
            other = fit.exact(fit.search(target, weight != 0, importance))
            best = fit.better(best, other)
        return fit.out_of(best).to(weight.dtype)


@dataclass(frozen=True, eq=False)
class Normalised:
    """A layer in coordinates in which every input has unit energy, which is what makes both solvers converge fast.

    Args:
        weight: W D^(1/2), [d_out, d_in], D the diagonal of the damped H.
        gram: D^(-1/2) H D^(-1/2), damped, [d_in, d_in], with a diagonal of ones.
        norms: sqrt(diag D), [d_in].
        alive: inputs that are not always zero, bool [d_in]; weights of others are nothing but zeros.
    """

    weight: Tensor
    gram: Tensor
    norms: Tensor
    alive: Tensor

    @classmethod
    def of(cls, weight: Tensor, gram: Tensor, damping: float) -> "Normalised":
        """Of a dense weight [d_out, d_in] and H; ``damping`` times the mean of its diagonal is added to it."""
        diagonal = gram.diagonal()
        alive = diagonal > 0
        damped = gram + torch.diag(diagonal.mean() * damping + (~alive).to(gram.dtype))
        norms = damped.diagonal().sqrt()
        scaled = (damped / norms / norms[:, None]).to(weight.dtype)
        norms = norms.to(weight.dtype)
        return cls(weight * norms * alive, scaled, norms, alive)

    def into(self, weight: Tensor) -> Tensor:
        """A weight in these coordinates."""
        return weight * self.norms * self.alive

    def out_of(self, weight: Tensor) -> Tensor:
        """A weight in the layer's own coordinates."""
        return weight / self.norms

    def exact(self, mask: Tensor, start: Tensor | None = None) -> Tensor:
        """Least squares of (V - W) H (V - W)^T over the weights V in a mask, by conjugate gradients, all rows at once.

        Args:
            mask: bool [d_out, d_in], True where a weight is kept.
            start: where to start, [d_out, d_in]; None is the dense weight in the mask.
        """
        mask = (mask & self.alive).to(self.weight.dtype)
        solution = (self.weight if start is None else start) * mask
        residual = ((self.weight - solution) @ self.gram) * mask
        direction = residual.clone()
        energy = residual.square().sum(dim=1, keepdim=True)
        smallest = torch.finfo(self.weight.dtype).tiny
        enough = torch.finfo(self.weight.dtype).eps ** 1.5 * (self.weight @ self.gram).square().sum(1, keepdim=True)
        for _ in range(MOST_ITERATIONS):
            if bool((energy <= enough).all()):
                break
            image = (direction @ self.gram) * mask
            step = energy / (direction * image).sum(dim=1, keepdim=True).clamp_min(smallest)
            step = step * (energy > enough)  # rows that are done stay where they are
            solution.addcmul_(direction, step)
            residual.addcmul_(image, step, value=-1)
            before, energy = energy, residual.square().sum(dim=1, keepdim=True)
            direction = residual + direction * (energy / before.clamp_min(smallest))
        return solution

    def search(self, target: Target, allowed: Tensor, importance: Tensor) -> Tensor:
        """A mask by ADMM, with zeros that become more from step to step.

        Args:
            target: how many weights go, and where.
            allowed: bool [d_out, d_in], False where a weight is zero already.
            importance: learned s, [d_in], which weighs what is kept.

        Returns:
            bool [d_out, d_in].
        """
        identity = torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        inverse = torch.linalg.inv(self.gram + PENALTY * identity)
        fixed = self.weight @ self.gram
        solution, dual = self.weight.clone(), torch.zeros_like(self.weight)
        mask = allowed
        for step in range(1, STEPS + 1):
            wanted = solution + dual
            score = (wanted.abs() * importance).masked_fill(~(allowed & self.alive), -1)
            mask = eased(target, min(step / GRADUAL, 1.0)).keep(score)
            sparse = wanted * mask
            dual = wanted - sparse
            solution = (fixed + PENALTY * (sparse - dual)) @ inverse
        return mask & allowed

    def errors(self, weight: Tensor) -> Tensor:
        """Squared error of every output on the damped inputs, [d_out, 1]."""
        difference = self.weight - weight
        return ((difference @ self.gram) * difference).sum(dim=1, keepdim=True)

    def better(self, first: Tensor, second: Tensor) -> Tensor:
        """The weight with the smaller error; row by row where that leaves the number of zeros as it is."""
        errors = [self.errors(weight) for weight in (first, second)]
        zeros = [(weight == 0).sum(dim=1) for weight in (first, second)]
        if not torch.equal(*zeros):  # rows share their zeros: those with fewer of them would always win
            errors = [error.sum().expand_as(error) for error in errors]
        return torch.where(errors[0] <= errors[1], first, second)


def eased(target: Target, share: float) -> Target:
    """The target with fewer zeros: cubic in the share of the way, so that the first ones go quickly."""
    part = 1 - (1 - share) ** 3
    if isinstance(target, NM):
        return replace(target, kept=target.of - round(part * (target.of - target.kept)))
    assert isinstance(target, Unstructured)
    return replace(target, sparsity=part * target.sparsity)
