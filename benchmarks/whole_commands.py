"""Commands as a user starts them, each in a process of its own: time on the wall, memory at most, what it printed."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


#: Lines of a failed command's output that are shown.
SHOWN = 15


@dataclass(frozen=True)
class Finished:
    """A command that has ended well.

    Args:
        seconds: from its start to its end, start-up of the interpreter included.
        peak_bytes: resident memory at most.
        output: what it wrote to stdout.
    """

    seconds: float
    peak_bytes: int
    output: str


class CommandFailed(Exception):
    """A command that ended with an error; the message is the end of what it wrote to stderr."""

    @property
    def last_line(self) -> str:
        """What stands for the rest in a table."""
        return str(self).splitlines()[-1]


def run_measured(command: Sequence[object], environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command to its end.

    Its peak counts what the caller held when it was started, because the system does: a process that measures others
    must not import torch.

    Args:
        command: program and words.
        environment: variables on top of the caller's.

    Raises:
        CommandFailed: when it cannot be started, or ends with another code than 0.
    """
    words = [str(word) for word in command]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as output,
        tempfile.TemporaryFile("w+", errors="replace") as log,
    ):
        begun = time.perf_counter()
        try:
            process = subprocess.Popen(words, stdout=output, stderr=log, env={**os.environ, **(environment or {})})
        except OSError as error:
            raise CommandFailed(f"{words[0]} cannot be started: {error}") from error
        try:
            # wait4 and not getrusage(RUSAGE_CHILDREN), whose maximum is over all children so far.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            # Progress bars write over one line many times.
            lines = [line.split("\r")[-1] for line in log.read().split("\n") if line.strip()]
            raise CommandFailed("\n".join(lines[-SHOWN:]) or f"{Path(words[0]).name}: exit code {process.returncode}")
        output.seek(0)
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Finished(seconds, peak, output.read())
