"""An action in a process of its own that is killed at one of its steps."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


#: What Python tells audit hooks of that changes files or names, and calls into the system's library.
STEPS = ("open", "os.", "shutil.", "ctypes.", "tempfile.")


def count_steps(step: int, within: str | Path = "/") -> Callable[[], int]:
    """Kill this process before its step of that number, 0 for none; what is returned tells how many there were.

    Args:
        step: from 1.
        within: what does not name a path below this folder is no step, calls into the system's library apart.
    """
    steps, place = 0, os.fspath(within)

    def hook(event, args):
        nonlocal steps
        if not event.startswith(STEPS):
            return
        paths = [os.fsdecode(value) for value in args if isinstance(value, (str, bytes, os.PathLike))]
        if event.startswith("ctypes.") or place == "/" or any(path.startswith(place) for path in paths):
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: steps


def killed_at(step: int, action: Callable[[], object]) -> tuple[bool, int]:
    """Do it in a child that is killed before its step of that number, 0 for none.

    Returns:
        Whether it was killed, and how many steps it came to where it was not.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            steps = count_steps(step)
            action()
            os.write(writing, str(steps()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as told:
        steps = int(told.read() or 0)
    assert os.WIFSIGNALED(status) or status == 0, "the action failed in the child"
    return os.WIFSIGNALED(status), steps


def script_killed_at(step: int, script: str, within: Path) -> tuple[bool, int]:
    """As :func:`killed_at`, of a script in an interpreter of its own: for what cannot go on after a fork."""
    begin = f"from support.kills import count_steps\nsteps = count_steps({step}, {str(within)!r})"
    places = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", f"{begin}\n{script}\nprint(steps())"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": places},
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0, int(done.stdout.split()[-1]) if done.returncode == 0 else 0
