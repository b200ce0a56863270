"""How concentrated the importance of weights is under a rotation: the entropy that rotations are learned by.

Importance is (|W_ij| sqrt(H_jj))^2, its entropy is taken over the weights of a row (as in DenoiseRotator, 2025: the
fewer weights hold a row's importance, the less is lost when the others go).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RowTerm:
    """A layer whose output rows are rotated: W' = Q^T W.

    Args:
        weight: [parts, repeats, size, d_in].
        diagonal: of H of its input, [d_in].
    """

    weight: Tensor
    diagonal: Tensor

    @property
    def count(self) -> int:
        """Weights of the layer."""
        return self.weight.numel()

    def entropy(self, rotation: Tensor) -> Tensor:
        """Mean over rows, in nats, under Q [parts, size, size]."""
        rotated = torch.einsum("pnm,prni->prmi", rotation, self.weight)
        return row_entropy(rotated.square() * self.diagonal)


@dataclass(frozen=True, eq=False)
class ColumnTerm:
    """A layer whose input columns are rotated: W' = W Q, on inputs with the moments Q^T H Q.

    Args:
        weight: [d_out, parts, repeats, size].
        gram: blocks of H on its diagonal, [parts, repeats, size, size].
    """

    weight: Tensor
    gram: Tensor

    @property
    def count(self) -> int:
        """Weights of the layer."""
        return self.weight.numel()

    def entropy(self, rotation: Tensor) -> Tensor:
        """Mean over rows, in nats, under Q [parts, size, size]."""
        rotated = torch.einsum("oprn,pnm->oprm", self.weight, rotation)
        moved = torch.einsum("prnk,pkm->prnm", self.gram, rotation)
        diagonal = torch.einsum("pnm,prnm->prm", rotation, moved).clamp_min(0)
        return row_entropy((rotated.square() * diagonal).flatten(1))


Term = RowTerm | ColumnTerm


def row_entropy(importance: Tensor) -> Tensor:
    """Mean entropy of the rows of ``importance`` [..., n] >= 0, each normalised to sum 1; rows of zeros count 0."""
    tiny = torch.finfo(importance.dtype).tiny
    shares = importance / importance.sum(dim=-1, keepdim=True).clamp_min(tiny)
    return -(shares * shares.clamp_min(tiny).log()).sum(dim=-1).mean()


def mean_entropy(terms: list[Term], rotation: Tensor) -> float:
    """Over all layers, each by its number of weights."""
    with torch.no_grad():
        total = sum(term.count for term in terms)
        return sum(float(term.entropy(rotation)) * term.count for term in terms) / total
