"""Moments of a layer's inputs in the pruned and the dense model together, for targets that repair earlier layers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .moments import Moments


@dataclass(frozen=True, eq=False)
class PairedMoments:
    """Co-moments of n tokens x_s (inputs in the pruned model) with e = x_d - x_s and, where there is one, the error
    r = r_d - r_s of the residual stream that the layer writes to.

    Args:
        count: n, padding left out.
        mean: of x_s, e and r one after the other, fp64 [d_in + d_in (+ d_out)].
        centered: sums of centered products of the same with x_s, fp64 [d_in + d_in (+ d_out), d_in].
    """

    count: int
    mean: Tensor
    centered: Tensor

    @classmethod
    def of(cls, sparse: Tensor, dense: Tensor, residual: Tensor | None = None) -> "PairedMoments":
        """Of tokens x_s and x_d [n, d_in], and r [n, d_out]; fp32 is multiplied in fp32, after centering."""
        parts = [sparse, dense - sparse] + ([] if residual is None else [residual])
        values = torch.cat(parts, dim=1)
        mean = values.mean(dim=0, dtype=torch.float64)
        values = values - mean.to(values.dtype)
        return cls(len(sparse), mean, (values.T @ values[:, : sparse.shape[1]]).double())

    def merged(self, other: "PairedMoments") -> "PairedMoments":
        """Of the tokens of both, by Chan's update: neither batch size nor a large mean changes the result."""
        total = self.count + other.count
        difference = other.mean - self.mean
        features = self.centered.shape[1]
        between = torch.outer(difference, difference[:features]) * (self.count * other.count / total)
        mean = self.mean + difference * (other.count / total)
        return PairedMoments(total, mean, self.centered + other.centered + between)

    def outputs(self, rows: slice) -> "PairedMoments":
        """The same with the stream's error at some outputs only."""
        inputs = slice(0, 2 * self._features)
        own = slice(2 * self._features, None)
        mean = torch.cat([self.mean[inputs], self.mean[own][rows]])
        return PairedMoments(self.count, mean, torch.cat([self.centered[inputs], self.centered[own][rows]]))

    def moments(self) -> Moments:
        """Those of x_s alone."""
        mean = self.mean[: self._features]
        gram = self._second(slice(0, self._features), center=False)
        return Moments(self.count, mean, gram.diagonal().clone(), gram, torch.ones_like(mean))

    def target_shift(self, weight: Tensor, center: bool) -> Tensor:
        """What the dense model has beyond W x_s where the layer writes, as E[(W e + r) x_s^T], fp64 [d_out, d_in].

        Args:
            weight: dense W, [d_out, d_in].
            center: take means away on both sides, as for a layer whose bias is fitted too.
        """
        features = self._features
        target_shift = weight.double() @ self._second(slice(features, 2 * features), center)
        return (
            target_shift + self._second(slice(2 * features, None), center)
            if len(self.mean) > 2 * features
            else target_shift
        )

    def mean_target_shift(self, weight: Tensor) -> Tensor:
        """Mean of W e + r, fp64 [d_out]."""
        features = self._features
        mean = weight.double() @ self.mean[features : 2 * features]
        return mean + self.mean[2 * features :] if len(self.mean) > 2 * features else mean

    @property
    def _features(self) -> int:
        return self.centered.shape[1]

    def _second(self, rows: slice, center: bool) -> Tensor:
        product = self.centered[rows] / max(self.count, 1)
        return product if center else product + torch.outer(self.mean[rows], self.mean[: self._features])
