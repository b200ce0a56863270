"""What a demo shows while it works: a table whose rows appear when they are known, and a clock meanwhile."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .comparison import say


class LiveTable:
    """Columns whose widths are known in advance, so that a row can be printed before the next one is computed.

    Args:
        header: names of the columns; the first column is flush left, the others are flush right.
        widths: of the columns, in characters; wider names and cells push theirs to the right.
    """

    def __init__(self, header: Sequence[str], widths: Sequence[int]) -> None:
        self._widths = [max(width, len(name)) for width, name in zip(widths, header, strict=True)]
        self.add(header)
        say("  ".join("-" * width for width in self._widths))

    def add(self, cells: Sequence[str]) -> None:
        """Print a row."""
        first, *others = zip(cells, self._widths, strict=True)
        aligned = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        say("  ".join(aligned).rstrip())


@contextmanager
def clock(task: str) -> Iterator[None]:
    """On a terminal, show how long a task has been running, in a line that is gone when it ends.

    Progress bars would stay between the rows of a table.
    """
    if not sys.stderr.isatty():
        yield
        return
    started, done = time.monotonic(), threading.Event()

    def tick() -> None:
        while True:
            print(f"\r{task} ... {time.monotonic() - started:.0f} s", end="", file=sys.stderr, flush=True)
            if done.wait(1):
                return

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def minutes(seconds: float) -> str:
    """A time for readers, such as "45 s" or "2 min 05 s"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"
