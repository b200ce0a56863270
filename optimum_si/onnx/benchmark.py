"""Speed, memory and size of models side by side: each in a process of its own, computing in turns."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import median
from typing import Any

from optimum_si.config.validators import check_integer
from optimum_si.errors import CheckpointError

from .benchmark_process import compute_when_told
from .directories import runtime_of, weight_bytes
from .speeds import Speed


def benchmark(
    directories: list[str | Path],
    prompt: int = 64,
    new_tokens: int = 32,
    batch_size: int = 1,
    repeats: int = 5,
    threads: int | None = None,
    device: str | None = None,
) -> list[Speed]:
    """Measure checkpoints (in PyTorch) and exports (in ONNX Runtime) in turns, and take medians.

    Args:
        directories: what ``save_pretrained`` or ``export`` wrote.
        prompt: number of tokens of the prompt.
        new_tokens: tokens that are generated after it.
        batch_size: number of prompts at once.
        repeats: number of turns; each directory computes once in a turn.
        threads: threads of each model; None is what the runtimes choose.
        device: device of exports, as ``ORTSIModel.from_pretrained`` takes it.

    Raises:
        CheckpointError: when a directory holds neither, or cannot be loaded.
    """
    for name, value in (
        ("prompt", prompt),
        ("new_tokens", new_tokens),
        ("batch_size", batch_size),
        ("repeats", repeats),
    ):
        check_integer(name, value, minimum=1)
    paths = [Path(directory) for directory in directories]
    for path in paths:
        runtime_of(path)
    context = multiprocessing.get_context("spawn")
    workers: list[tuple[SpawnProcess, Connection]] = []
    try:
        for path in paths:
            ours, theirs = context.Pipe()
            arguments = (theirs, path, prompt, new_tokens, batch_size, threads, device)
            process = context.Process(target=compute_when_told, args=arguments, daemon=True)
            with _without_the_working_directory():
                process.start()
            workers.append((process, ours))
            # One after another, so that no load is measured beside another.
            _answer(ours, path)
        connections = [connection for _, connection in workers]
        # The first turn warms up.
        turns = [_ask(connections, paths, "run") for _ in range(repeats + 1)][1:]
        ends = _ask(connections, paths, "end")
    finally:
        for process, connection in workers:
            connection.close()
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()
                process.join()
    return [
        _speed(path, [answers[index] for answers in turns], end)
        for index, (path, end) in enumerate(zip(paths, ends, strict=True))
    ]


@contextmanager
def _without_the_working_directory() -> Iterator[None]:
    """Processes that start meanwhile import no module from there, as with -P: it may be a downloaded folder."""
    variable = "PYTHONSAFEPATH"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _ask(connections: list[Connection], paths: list[Path], word: str) -> list[Any]:
    """The answers of all processes, each told after the one before has answered."""
    answers = []
    for connection, path in zip(connections, paths, strict=True):
        connection.send(word)
        answers.append(_answer(connection, path))
    return answers


def _answer(connection: Connection, path: Path) -> Any:
    try:
        answer = connection.recv()
    except EOFError as error:
        raise CheckpointError(f"measuring {str(path)!r} ended without an answer: is there enough memory?") from error
    if isinstance(answer, Exception):
        raise answer
    return answer


def _speed(path: Path, turns: list[dict[str, float]], end: dict[str, float]) -> Speed:
    has_decode = "decode" in turns[0]
    return Speed(
        path.name,
        runtime_of(path),
        weight_bytes(path) / 1e6,
        end["load"],
        median(turn["prefill"] for turn in turns),
        median(turn["decode"] for turn in turns) if has_decode else None,
        end["peak"],
    )
