"""Moments of a layer's inputs in the pruned and the dense model together, for targets that repair earlier layers."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .moments import Moments, add_gram, mirror


@dataclass(frozen=True, eq=False)
class PairedMoments:
    """Co-moments of n tokens x (inputs in the pruned model) with what the dense model is ahead of them.

    Args:
        count: n, padding left out.
        mean: of x and of the error one after the other, fp64 [d_in + d].
        centered: sums of centered products of the same with x, fp64 [d_in + d, d_in].
        of_outputs: the error is that of the layer's output, W (x_d - x) and what the residual stream is ahead before
            it, d = d_out; else that of its input, x_d - x, d = d_in.
    """

    count: int
    mean: Tensor
    centered: Tensor
    of_outputs: bool

    def merged(self, other: "PairedMoments") -> "PairedMoments":
        """Of the tokens of both, by Chan's update: neither batch size nor a large mean changes the result."""
        total = self.count + other.count
        difference = other.mean - self.mean
        centered = self.centered + other.centered
        weight = self.count * other.count / total
        centered.addr_(difference, difference[: self._features], alpha=weight)
        return replace(self, count=total, mean=self.mean + difference * (other.count / total), centered=centered)

    def outputs(self, rows: slice) -> "PairedMoments":
        """The same for some outputs of the layer only."""
        if not self.of_outputs:
            return self
        inputs, own = slice(0, self._features), slice(self._features, None)
        mean = torch.cat([self.mean[inputs], self.mean[own][rows]])
        return replace(self, mean=mean, centered=torch.cat([self.centered[inputs], self.centered[own][rows]]))

    def moments(self) -> Moments:
        """Those of x alone."""
        mean = self.mean[: self._features]
        gram = self._second(slice(0, self._features), center=False)
        return Moments(self.count, mean, gram.diagonal().clone(), gram, torch.ones_like(mean))

    def target_shift(self, weight: Tensor, center: bool) -> Tensor:
        """What the dense model has beyond W x where the layer writes, times x^T, on average: fp64 [d_out, d_in].

        Args:
            weight: dense W, [d_out, d_in].
            center: take means away on both sides, as for a layer whose bias is fitted too.
        """
        error = self._second(slice(self._features, None), center)
        return error if self.of_outputs else weight.double() @ error

    def mean_target_shift(self, weight: Tensor) -> Tensor:
        """What the dense model has beyond W x where the layer writes, on average: fp64 [d_out]."""
        error = self.mean[self._features :]
        return error if self.of_outputs else weight.double() @ error

    @property
    def _features(self) -> int:
        return self.centered.shape[1]

    def _second(self, rows: slice, center: bool) -> Tensor:
        product = self.centered[rows] / max(self.count, 1)
        return product if center else product.addr_(self.mean[rows], self.mean[: self._features])


class PairedAccumulator:
    """Adds up token batches by Chan's centered update, in place.

    Args:
        of_outputs: see :class:`PairedMoments`.
    """

    def __init__(self, of_outputs: bool) -> None:
        self.of_outputs, self.count = of_outputs, 0
        self.mean = self.centered = torch.empty(0)

    def add(self, tokens: Tensor, error: Tensor) -> None:
        """Add tokens x [n, d_in] and their errors [n, d]; fp32 is multiplied in fp32, after centering."""
        added, features = tokens.shape
        if not added:
            return
        mean = torch.cat([part.mean(dim=0, dtype=torch.float64) for part in (tokens, error)])
        if not self.count:
            self.mean = torch.zeros_like(mean)
            self.centered = mean.new_zeros(len(mean), features)
        centered, error = tokens - mean[:features].to(tokens.dtype), error - mean[features:].to(error.dtype)
        add_gram(self.centered[:features], centered)
        self.centered[features:] += error.T @ centered
        total, difference = self.count + added, mean - self.mean
        self.centered.addr_(difference, difference[:features], alpha=self.count * added / total)
        self.mean += difference * (added / total)
        self.count = total

    def moments(self) -> PairedMoments:
        """Of all tokens added so far, of which there must be some."""
        mirror(self.centered[: self.centered.shape[1]])
        return PairedMoments(self.count, self.mean, self.centered, self.of_outputs)
