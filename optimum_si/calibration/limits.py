"""Limits on the time and memory of what comes with a model and runs, such as a chat template."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optimum_si.errors import CalibrationError


#: Bytes beside those in use: the text of a conversation has a few megabytes.
MOST_MEMORY = 1 << 29


@contextmanager
def bounded(seconds: float, what: str) -> Iterator[None]:
    """Raise :class:`CalibrationError` in the middle of what takes longer, or :data:`MOST_MEMORY` more memory.

    Args:
        seconds: that it may take.
        what: runs, in words.
    """
    try:
        with _ended_after(seconds, what), no_more_memory(MOST_MEMORY):
            yield
    except MemoryError as error:
        raise CalibrationError(
            f"{what} takes more than {MOST_MEMORY >> 20} MiB of memory: mend it, or give text of your own."
        ) from error


@contextmanager
def _ended_after(seconds: float, what: str) -> Iterator[None]:
    """Only in the main thread, and where the system has timers: nothing else can end code that does not look up."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: Any) -> None:
        raise CalibrationError(
            f"{what} does not come to an end within {seconds:g} s: mend it, or give text of your own."
        )

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def no_more_memory(most: int) -> Iterator[None]:
    """Let allocations fail beside so many bytes, where the system says how many are in use and limits them (Linux)."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * os.sysconf("SC_PAGE_SIZE") + most
    if before[0] == resource.RLIM_INFINITY or limit < before[0]:
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
