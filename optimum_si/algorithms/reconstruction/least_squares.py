"""Least squares over the weights that are kept, on the Gram matrix alone.

``exact`` solves for the weights in a mask, row by row; ``search`` looks for a mask by ADMM (Boza 2024,
arXiv 2401.02938; ALPS, arXiv 2406.07831).
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.targets import NM, Target, Unstructured
from optimum_si.linalg.conjugate_gradient import conjugate_gradient
from optimum_si.linalg.units import unit_of


#: Steps of ADMM, and over how many of them the zeros become as many as asked for.
STEPS, GRADUAL = 30, 20
#: Weight of the constraint, in coordinates in which every input has unit energy.
PENALTY = 1.0
#: Conjugate gradients stop at a step that lowers a layer's error by less than this share of what all steps have, or
#: after so many: measured, 3 to 5 after ADMM, about 20 from the mask of a score.
GAIN, MOST_ITERATIONS = 3e-2, 100
#: The same for fits to compare by.
ROUGH = 1e-1


@dataclass(frozen=True, eq=False)
class DampedGram:
    """A Gram matrix as all layers that read one input share it, in coordinates in which each input has unit energy.

    Args:
        gram: D^(-1/2) H D^(-1/2), damped, [d_in, d_in], with a diagonal of ones; D the diagonal of the damped H.
        norms: sqrt(diag D) in units of ``unit``, [d_in].
        alive: inputs that are not always zero, bool [d_in]; weights of others are nothing but zeros.
        unit: a power of two near the largest norm.
        inverses: of ``gram`` with a penalty on its diagonal, by that penalty; filled as they are asked for.
    """

    gram: Tensor
    norms: Tensor
    alive: Tensor
    unit: float
    inverses: dict[float, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, gram: Tensor, damping: float, mode: str, dtype: torch.dtype) -> "DampedGram":
        """Of H [d_in, d_in].

        Args:
            gram: H.
            damping: so many times the mean of H's diagonal is added to it; in mode "channel" so many times H_jj.
            mode: "mean" or "channel".
            dtype: to compute in.
        """
        diagonal = gram.diagonal()
        alive = diagonal > 0
        extra = diagonal.mean() if mode == "mean" else diagonal
        norms = (diagonal + extra * damping + (~alive).to(gram.dtype)).sqrt()
        scaled = (gram / norms / norms[:, None]).to(dtype)
        scaled.fill_diagonal_(1)
        unit = unit_of(norms[alive])
        return cls(scaled, (norms / unit).to(dtype), alive, unit)

    def inverse(self, penalty: float) -> Tensor:
        """(gram + penalty I)^-1, [d_in, d_in]."""
        if penalty not in self.inverses:
            raised = self.gram.clone()
            raised.diagonal().add_(penalty)
            self.inverses[penalty] = torch.cholesky_inverse(torch.linalg.cholesky(raised))
        return self.inverses[penalty]


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """min over sparse V of E||T - V x||^2 = tr(V H V^T) - 2 tr(V C^T) + ..., C = E[T x^T] = W H + ``target_shift``.

    Everything is in coordinates in which every input has unit energy, which is what makes both solvers converge fast,
    and in units in which the largest weight is near 1, whose squares overflow nowhere.

    Args:
        weight: W D^(1/2), [d_out, d_in].
        damped: H and D.
        target_gram: C D^(-1/2), damped as H is, [d_out, d_in].
        unit: of W, a power of two.
    """

    weight: Tensor
    damped: DampedGram
    target_gram: Tensor
    unit: float

    @classmethod
    def of(cls, weight: Tensor, damped: DampedGram, target_shift: Tensor | None = None) -> "LeastSquares":
        """Of a layer, whose target is its own dense output unless told otherwise.

        Args:
            weight: dense W, [d_out, d_in].
            damped: its inputs.
            target_shift: what the target has beyond W x, E[(T - W x) x^T], [d_out, d_in].
        """
        unit = unit_of(weight)
        own = weight / unit * damped.norms * damped.alive
        target_gram = own @ damped.gram
        if target_shift is not None:
            beyond = target_shift / (unit * damped.unit) / damped.unit
            target_gram += beyond.to(weight.dtype) / damped.norms * damped.alive
        return cls(own, damped, target_gram, unit)

    @property
    def gram(self) -> Tensor:
        """H in these coordinates, [d_in, d_in]."""
        return self.damped.gram

    @property
    def alive(self) -> Tensor:
        """Inputs that are not always zero, bool [d_in]."""
        return self.damped.alive

    def rows(self, rows: slice) -> "LeastSquares":
        """The problem of some outputs: each is one of its own."""
        return replace(self, weight=self.weight[rows], target_gram=self.target_gram[rows])

    def multiplied(self, factor: Tensor) -> "LeastSquares":
        """The problem with outputs multiplied by positive factors, [d_out, 1]."""
        return replace(self, weight=self.weight * factor, target_gram=self.target_gram * factor)

    def into(self, weight: Tensor) -> Tensor:
        """A weight in these coordinates."""
        return weight / self.unit * self.damped.norms * self.alive

    def out_of(self, weight: Tensor) -> Tensor:
        """A weight in the layer's own coordinates."""
        return weight / self.damped.norms * self.unit

    def exact(self, mask: Tensor, start: Tensor | None = None, rough: bool = False) -> Tensor:
        """The best weights in a mask, by conjugate gradients, all rows at once, until the error hardly falls any more.

        Args:
            mask: bool [d_out, d_in], True where a weight is kept.
            start: where to start, [d_out, d_in]; None is the dense weight in the mask.
            rough: stop sooner.
        """
        mask = (mask & self.alive).to(self.weight.dtype)
        solution = (self.weight if start is None else start) * mask
        residual = (self.target_gram - solution @ self.gram) * mask
        return conjugate_gradient(
            lambda direction: direction @ self.gram,
            mask,
            solution,
            residual,
            dim=1,
            iterations=MOST_ITERATIONS,
            gain=ROUGH if rough else GAIN,
        )

    def search(
        self, target: Target, allowed: Tensor, importance: Tensor | None = None, penalty: float = PENALTY
    ) -> Tensor:
        """Sparse weights by ADMM, with zeros that become more from step to step.

        Args:
            target: how many weights go, and where.
            allowed: bool [d_out, d_in], False where a weight is zero already.
            importance: learned s, [d_in], which weighs what is kept; None is 1.
            penalty: weight of the constraint.

        Returns:
            Weights near the best ones in their mask, [d_out, d_in].
        """
        inverse, dense, wanted_gram, free = (
            self.damped.inverse(penalty),
            self.weight,
            self.target_gram,
            allowed & self.alive,
        )
        order = target.spread(dense.shape[1])
        if order is not None:
            order = order.to(dense.device)
            inverse = inverse[order][:, order]
            dense, wanted_gram, free = (values[:, order] for values in (dense, wanted_gram, free))
            importance = None if importance is None else importance[order]
        wanted, solution, never = dense.clone(), torch.empty_like(dense), ~free
        sparse = wanted
        for step in range(1, STEPS + 1):
            score = wanted.abs()
            if importance is not None:
                score *= importance
            score.masked_fill_(never, -1)
            sparse = wanted * eased(target, min(step / GRADUAL, 1.0)).keep_spread(score).logical_and_(free)
            if step == STEPS:
                break
            # solution = (C + penalty (sparse - dual)) inverse; wanted = solution + dual; dual = wanted - sparse.
            target_gram = torch.add(wanted_gram, 2 * sparse - wanted, alpha=penalty)
            torch.mm(target_gram, inverse, out=solution)
            wanted += solution.sub_(sparse)
        return sparse if order is None else torch.empty_like(sparse).index_copy_(1, order, sparse)

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
