"""Which windows make a step, in an order that depends on the seed and the epoch alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


#: Tokens that pass through the model together at least, where windows are short: fewer would leave it idle.
TOGETHER = 512
#: Share of the windows that is held out, and how many at least, where that leaves half of them.
HELD_OUT, FEWEST_HELD_OUT = 16, 4


@dataclass(frozen=True)
class Steps:
    """The windows of a recovery, by their positions.

    Args:
        lengths: tokens of each window.
        batch_size: windows of the greatest length whose tokens a step holds.
        seed: of the run.
    """

    lengths: Sequence[int]
    batch_size: int
    seed: int

    @classmethod
    def of(cls, windows: Sequence[Mapping[str, Tensor]], batch_size: int, seed: int) -> "Steps":
        """Of windows as they are; what has no tokens counts as one of the greatest length."""
        lengths = [int(window["attention_mask"].sum()) if "attention_mask" in window else 1 for window in windows]
        return cls(lengths, batch_size, seed)

    @property
    def held_out(self) -> list[int]:
        """Windows that nothing is trained on; of a single window that one."""
        return self._shuffled[: self._num_held_out]

    @property
    def together(self) -> int:
        """Tokens that pass through the model together at most, padding aside."""
        longest = max(self.lengths)
        return longest if longest == 1 else max(longest, TOGETHER)

    def of_epoch(self, epoch: int) -> list[list[int]]:
        """The steps of an epoch, as lists of windows."""
        training = self._shuffled[self._num_held_out :] or self._shuffled
        generator = torch.Generator().manual_seed(self.seed * 65_537 + epoch + 1)
        order = [training[index] for index in torch.randperm(len(training), generator=generator).tolist()]
        return self._filled(order, self.batch_size * max(self.lengths))

    def parts(self, windows: Sequence[int]) -> list[list[int]]:
        """Windows as batches that pass through the model together, of similar length."""
        return self._filled(sorted(windows, key=lambda index: self.lengths[index]), self.together)

    @property
    def _num_held_out(self) -> int:
        count = len(self.lengths)
        return min(max(count // HELD_OUT, FEWEST_HELD_OUT), count // 2)

    @property
    def _shuffled(self) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 65_537)
        return torch.randperm(len(self.lengths), generator=generator).tolist()

    def _filled(self, order: Sequence[int], tokens: int) -> list[list[int]]:
        """Consecutive windows that hold at most so many tokens together; a longer one stands alone."""
        result: list[list[int]] = []
        held = 0
        for index in order:
            if not result or held + self.lengths[index] > tokens:
                result.append([])
                held = 0
            result[-1].append(index)
            held += self.lengths[index]
        return result
