"""The bar over blocks, and how long those that are left will take."""

import time
from collections.abc import Callable, Hashable, Sequence
from statistics import mean
from typing import Any

from tqdm.auto import tqdm


def seconds_left(kinds: Sequence[Hashable], seconds: Sequence[float]) -> float | None:
    """Expected wall time of the blocks to come, in seconds; None before the first is done.

    Blocks of one kind cost about the same. The first carries start-up (memory that is allocated, kernels that are
    chosen), so it counts only for as long as it is the only one that tells.

    Args:
        kinds: of every block, in order: what its cost depends on.
        seconds: wall time of those that are done.
    """
    if not seconds:
        return None
    done = list(zip(kinds, seconds, strict=False))
    settled = done[1:] or done

    def expected(kind: Hashable) -> float:
        alike = [cost for other, cost in settled if other == kind] or [cost for other, cost in done if other == kind]
        return mean(alike or [cost for _, cost in settled])

    return sum(expected(kind) for kind in kinds[len(seconds) :])


class BlockBar(tqdm):
    """A bar over blocks whose remaining time is that of :func:`seconds_left`; ``update()`` says that one is done.

    Args:
        task: what happens to blocks, such as "prune".
        kinds: of every block, in order: what its cost depends on.
        then: phases after the last block, which the remaining time leaves out.
        clock: seconds.
        options: of ``tqdm``.
    """

    def __init__(
        self,
        task: str,
        kinds: Sequence[Hashable],
        then: Sequence[str] = (),
        clock: Callable[[], float] = time.perf_counter,
        **options: Any,
    ) -> None:
        # Before tqdm's constructor, which already draws.
        self._kinds, self._clock = kinds, clock
        self._seconds: list[float] = []
        self._started = clock()
        description = f"{task} (time left until {then[0]})" if then else task
        super().__init__(total=len(kinds), desc=description, unit="block", **options)

    def update(self, n: float | None = 1) -> bool | None:
        """One more block is done."""
        now = self._clock()
        self._seconds.append(now - self._started)
        self._started = now
        return super().update(n)

    @property
    def format_dict(self) -> Any:
        """What tqdm draws, with a rate at which the remaining blocks take as long as they are expected to."""
        left = seconds_left(self._kinds, self._seconds)
        # tqdm's own rate is a moving average, in which the first block counts for nearly half after the second.
        rate = (len(self._kinds) - len(self._seconds)) / left if left else None
        return {**super().format_dict, "rate": rate}
