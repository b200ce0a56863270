"""A limit on the time of what comes with a model and runs, such as a chat template."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from optimum_si.errors import CalibrationError


@contextmanager
def ended_after(seconds: float, what: str) -> Iterator[None]:
    """Raise :class:`CalibrationError` in the middle of what takes longer.

    Only in the main thread, and where the system has timers: nothing else can end code that does not look up.

    Args:
        seconds: that it may take.
        what: runs, in words.
    """
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
