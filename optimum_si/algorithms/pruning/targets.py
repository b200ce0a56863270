"""Targets: which weights of a [d_out, d_in] score are kept. Exact counts; ties are broken by index."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from optimum_si.config.choices import parse_pattern
from optimum_si.errors import ConfigurationError


#: Largest group whose values are ranked by comparing them with each other, entry by entry of all groups at once.
COUNTED = 16


class Target(ABC):
    """How many weights are set to zero, and among which weights they are chosen."""

    #: True where rows share one threshold, so that scaling a row moves the mask.
    shares_rows: ClassVar[bool] = False
    #: Fraction of zeros aimed at.
    sparsity: float

    @abstractmethod
    def keep(self, score: Tensor) -> Tensor:
        """Mask of the weights with the highest scores.

        Args:
            score: [d_out, d_in], higher means more important.

        Returns:
            bool [d_out, d_in], True where a weight is kept. Counts are exact: among equal scores the lower index
            is pruned first.
        """

    @abstractmethod
    def neighbors(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """The highest pruned and the lowest kept value of every group.

        Args:
            score: [d_out, d_in].

        Returns:
            Two tensors with a value for each group; both are below all scores where nothing is pruned, and above them
            where everything is.
        """

    def spread(self, columns: int) -> Tensor | None:
        """An order of the columns in which :meth:`keep_spread` is quick, int64 [columns]; None is as they are."""
        return None

    def keep_spread(self, score: Tensor) -> Tensor:
        """:meth:`keep`, with columns in the order of :meth:`spread` in what is given and returned."""
        return self.keep(score)

    def groups(self, values: Tensor) -> Tensor:
        """View of [d_out, d_in] values in which the last dimension is one comparison group."""
        return values

    @abstractmethod
    def with_sparsity(self, sparsity: float) -> "Target":
        """The same groups with another fraction of zeros."""

    @abstractmethod
    def pruned(self, size: int) -> int:
        """Zeros in a comparison group of ``size`` weights."""

    @abstractmethod
    def zeros(self, rows: int, columns: int) -> int:
        """Zeros in a layer of [rows, columns]."""

    @abstractmethod
    def granularity(self, rows: int, columns: int) -> int:
        """By how many the zeros of a layer of [rows, columns] change at least: one in each group."""

    @abstractmethod
    def exchange(self, columns: int) -> int:
        """How many consecutive columns of a row may exchange a kept weight for a pruned one."""

    @abstractmethod
    def check(self, name: str, columns: int) -> None:
        """Raise :class:`ConfigurationError` where the layer ``name`` cannot be cut into groups."""


@dataclass(frozen=True)
class Unstructured(Target):
    """``round(sparsity * size)`` zeros in every output row, or in the whole layer."""

    sparsity: float
    group: str = "row"

    @property
    def shares_rows(self) -> bool:  # type: ignore[override]
        """True where the whole layer is one group."""
        return self.group == "layer"

    def groups(self, values: Tensor) -> Tensor:
        return values.reshape(1, -1) if self.group == "layer" else values

    def keep(self, score: Tensor) -> Tensor:
        rows = self.groups(score)
        return _keep_highest(rows, rows.shape[1] - self.pruned(rows.shape[1])).reshape(score.shape)

    def neighbors(self, score: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.groups(score)
        return _cut(rows, self.pruned(rows.shape[1]))

    def with_sparsity(self, sparsity: float) -> "Unstructured":
        return replace(self, sparsity=sparsity)

    def zeros(self, rows: int, columns: int) -> int:
        return self.pruned(rows * columns) if self.shares_rows else rows * self.pruned(columns)

    def granularity(self, rows: int, columns: int) -> int:
        return 1 if self.shares_rows else rows

    def exchange(self, columns: int) -> int:
        return columns

    def check(self, name: str, columns: int) -> None:
        """Rows and layers of any size can be cut."""

    def pruned(self, size: int) -> int:
        return round(self.sparsity * size)


@dataclass(frozen=True)
class NM(Target):
    """At most N non-zeros in every M consecutive input weights."""

    kept: int
    of: int

    def groups(self, values: Tensor) -> Tensor:
        return values.reshape(-1, self.of)

    def keep(self, score: Tensor) -> Tensor:
        return _keep_highest(self.groups(score), self.kept).reshape(score.shape)

    def spread(self, columns: int) -> Tensor | None:
        # The first of every group, then the second of every group: what is compared lies side by side in memory.
        return torch.arange(columns).reshape(-1, self.of).T.reshape(-1) if self.of <= COUNTED else None

    def keep_spread(self, score: Tensor) -> Tensor:
        if self.of > COUNTED or self.kept == self.of:
            return self.keep(score)
        entries = score.reshape(len(score), self.of, -1).unbind(1)
        return torch.stack(_counted(entries, self.kept), dim=1).reshape(score.shape)

    def neighbors(self, score: Tensor) -> tuple[Tensor, Tensor]:
        rows, pruned = self.groups(score), self.of - self.kept
        ranked = _ranked(rows) if self.of <= COUNTED else rows.sort(dim=1).values.unbind(1)
        return ranked[pruned - 1], ranked[pruned]

    @property
    def sparsity(self) -> float:  # type: ignore[override]
        return 1 - self.kept / self.of

    def pruned(self, size: int) -> int:
        return size * (self.of - self.kept) // self.of

    def with_sparsity(self, sparsity: float) -> "NM":
        return replace(self, kept=self.of - round(sparsity * self.of))

    def zeros(self, rows: int, columns: int) -> int:
        return (self.of - self.kept) * self.granularity(rows, columns)

    def granularity(self, rows: int, columns: int) -> int:
        return rows * (columns // self.of)

    def exchange(self, columns: int) -> int:
        return self.of

    def check(self, name: str, columns: int) -> None:
        if columns % self.of:
            raise ConfigurationError(
                f"pattern '{self.kept}:{self.of}' needs a multiple of {self.of} input columns, but layer {name!r} has "
                f"{columns}: exclude that layer (exclude=['{name}']) or choose another pattern."
            )


def make_target(sparsity: float | None, pattern: str | None, group: str) -> Target:
    """The target of a recipe: a pattern where one is given, a sparsity within ``group`` otherwise."""
    return Unstructured(sparsity or 0.0, group) if pattern is None else NM(*parse_pattern(pattern))


def _keep_highest(rows: Tensor, count: int) -> Tensor:
    """bool [g, n] with exactly ``count`` True per row: the highest values, the later index first among equals."""
    size = rows.shape[1]
    if count == size:
        return torch.ones_like(rows, dtype=torch.bool)
    if count == 0:
        return torch.zeros_like(rows, dtype=torch.bool)
    if size <= COUNTED:
        return _counted_highest(rows, count)
    # kthvalue is several times cheaper than a full sort; only ties at the cut need to be ranked.
    cut = rows.kthvalue(size - count, dim=1, keepdim=True).values
    above, tied = rows > cut, rows == cut
    spare = count - above.sum(dim=1, keepdim=True)
    tied_from_the_end = tied.flip(1).cumsum(1).flip(1)
    return above | (tied & (tied_from_the_end <= spare))


def _counted_highest(rows: Tensor, count: int) -> Tensor:
    """The same by counting how many of its group are ahead of each value: five times faster in groups of a few."""
    return torch.stack(_counted([entry.contiguous() for entry in rows.unbind(1)], count), dim=1)


def _counted(entries: Sequence[Tensor], count: int) -> list[Tensor]:
    """Which of the entries of every group, all of one shape, are among its ``count`` highest."""
    ahead = [torch.zeros(entry.shape, dtype=torch.uint8, device=entry.device) for entry in entries]
    for later in range(1, len(entries)):
        for earlier in range(later):
            is_ahead = entries[earlier] > entries[later]
            ahead[later] += is_ahead
            ahead[earlier] += is_ahead.logical_not_()
    return [number < count for number in ahead]


def _ranked(rows: Tensor) -> list[Tensor]:
    """The values of each row [g, n] from the lowest to the highest, [g] each: a sort by neighbors, which is quick
    where rows are many and short."""
    entries = [entry.contiguous() for entry in rows.unbind(1)]
    for turn in range(len(entries)):
        for left in range(turn % 2, len(entries) - 1, 2):
            first, second = entries[left], entries[left + 1]
            entries[left], entries[left + 1] = torch.minimum(first, second), torch.maximum(first, second)
    return entries


def _cut(rows: Tensor, pruned: int) -> tuple[Tensor, Tensor]:
    """[g] each: the highest pruned and the lowest kept value of each row [g, n]."""
    if pruned == 0:
        below = rows.amin(dim=1) - 1
        return below, below
    highest_pruned = rows.kthvalue(pruned, dim=1).values
    if pruned == rows.shape[1]:
        return highest_pruned + 1, highest_pruned + 1
    return highest_pruned, rows.masked_fill(rows <= highest_pruned[:, None], float("inf")).amin(dim=1)
