"""Least squares over the weights that are kept, on the Gram matrix alone.

``exact`` solves for the weights in a mask, row by row; ``search`` looks for a mask by ADMM (Boza 2024,
arXiv 2401.02938; ALPS, arXiv 2406.07831).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.targets import NM, Target, Unstructured
from optimum_si.linalg.conjugate_gradient import conjugate_gradient


#: Steps of ADMM, and over how many of them the zeros become as many as asked for.
STEPS, GRADUAL = 30, 20
#: Weight of the constraint, in coordinates in which every input has unit energy.
PENALTY = 1.0
MOST_ITERATIONS = 200
#: Squared residual, as a fraction of the target's, and most iterations of a fit to compare by or to start from.
ROUGH, MOST_ROUGH = 1e-8, 100


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """min over sparse V of E||T - V x||^2 = tr(V H V^T) - 2 tr(V C^T) + ..., C = E[T x^T] = W H + ``target_shift``.

    Everything is in coordinates in which every input has unit energy, which is what makes both solvers converge fast.

    Args:
        weight: W D^(1/2), [d_out, d_in], D the diagonal of the damped H.
        gram: D^(-1/2) H D^(-1/2), damped, [d_in, d_in], with a diagonal of ones.
        target_gram: C D^(-1/2), damped as H is, [d_out, d_in].
        norms: sqrt(diag D), [d_in].
        alive: inputs that are not always zero, bool [d_in]; weights of others are nothing but zeros.
    """

    weight: Tensor
    gram: Tensor
    target_gram: Tensor
    norms: Tensor
    alive: Tensor

    @classmethod
    def of(
        cls, weight: Tensor, gram: Tensor, damping: float, target_shift: Tensor | None = None, mode: str = "mean"
    ) -> "LeastSquares":
        """Of a layer, whose target is its own dense output unless told otherwise.

        Args:
            weight: dense W, [d_out, d_in].
            gram: H, [d_in, d_in].
            damping: so many times the mean of H's diagonal is added to it, and W times that to C.
            target_shift: what the target has beyond W x, E[(T - W x) x^T], [d_out, d_in].
            mode: "channel" adds so many times H_jj itself instead.
        """
        diagonal = gram.diagonal()
        alive = diagonal > 0
        extra = diagonal.mean() if mode == "mean" else diagonal
        damped = gram + torch.diag(extra * damping + (~alive).to(gram.dtype))
        norms = damped.diagonal().sqrt()
        scaled = (damped / norms / norms[:, None]).to(weight.dtype)
        norms = norms.to(weight.dtype)
        own = weight * norms * alive
        target_gram = own @ scaled
        if target_shift is not None:
            target_gram = target_gram + target_shift.to(weight.dtype) / norms * alive
        return cls(own, scaled, target_gram, norms, alive)

    def into(self, weight: Tensor) -> Tensor:
        """A weight in these coordinates."""
        return weight * self.norms * self.alive

    def out_of(self, weight: Tensor) -> Tensor:
        """A weight in the layer's own coordinates."""
        return weight / self.norms

    def exact(self, mask: Tensor, start: Tensor | None = None, rough: bool = False) -> Tensor:
        """The best weights in a mask, by conjugate gradients, all rows at once.

        Args:
            mask: bool [d_out, d_in], True where a weight is kept.
            start: where to start, [d_out, d_in]; None is the dense weight in the mask.
            rough: stop where the error of the fit hardly changes any more, in a fraction of the steps.
        """
        mask = (mask & self.alive).to(self.weight.dtype)
        solution = (self.weight if start is None else start) * mask
        residual = (self.target_gram - solution @ self.gram) * mask
        tolerance = ROUGH if rough else torch.finfo(self.weight.dtype).eps ** 1.5
        return conjugate_gradient(
            lambda direction: direction @ self.gram,
            mask,
            solution,
            residual,
            dim=1,
            iterations=MOST_ROUGH if rough else MOST_ITERATIONS,
            enough=tolerance * self.target_gram.square().sum(1, keepdim=True),
        )

    def search(self, target: Target, allowed: Tensor, importance: Tensor | None = None) -> Tensor:
        """Sparse weights by ADMM, with zeros that become more from step to step.

        Args:
            target: how many weights go, and where.
            allowed: bool [d_out, d_in], False where a weight is zero already.
            importance: learned s, [d_in], which weighs what is kept; None is 1.

        Returns:
            Weights near the best ones in their mask, [d_out, d_in].
        """
        identity = torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        inverse = torch.linalg.inv(self.gram + PENALTY * identity)
        solution, dual = self.weight.clone(), torch.zeros_like(self.weight)
        sparse = solution
        for step in range(1, STEPS + 1):
            wanted = solution + dual
            score = wanted.abs() if importance is None else wanted.abs() * importance
            score = score.masked_fill(~(allowed & self.alive), -1)
            sparse = wanted * (eased(target, min(step / GRADUAL, 1.0)).keep(score) & allowed)
            dual = wanted - sparse
            solution = (self.target_gram + PENALTY * (sparse - dual)) @ inverse
        return sparse

    def errors(self, weight: Tensor) -> Tensor:
        """Squared error of every output on the damped inputs, beyond that of W, [d_out, 1]."""
        difference = weight - self.weight
        # Around W, not around zero: sums of large terms would leave little of their difference.
        gradient = self.weight @ self.gram - self.target_gram
        return ((difference @ self.gram + 2 * gradient) * difference).sum(dim=1, keepdim=True)

    def better(self, first: Tensor, second: Tensor) -> Tensor:
        """The weight with the smaller error; row by row where that leaves the number of zeros as it is."""
        errors = [self.errors(weight) for weight in (first, second)]
        zeros = [(weight == 0).sum(dim=1) for weight in (first, second)]
        if not torch.equal(*zeros):  # rows share their zeros: those with fewer of them would always win
            errors = [error.sum().expand_as(error) for error in errors]
        return torch.where(errors[0] <= errors[1], first, second)


def eased(target: Target, progress: float) -> Target:
    """The target with fewer zeros: cubic in the fraction of the way, so that the first ones go quickly."""
    part = 1 - (1 - progress) ** 3
    if isinstance(target, NM):
        return replace(target, kept=target.of - round(part * (target.of - target.kept)))
    assert isinstance(target, Unstructured)
    return replace(target, sparsity=part * target.sparsity)
