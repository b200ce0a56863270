"""Speed, memory and size of models side by side: each in a process of its own, computing in turns."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from optimum_si.config.validators import check_integer
from optimum_si.errors import CheckpointError, ConfigurationError, SIError
from optimum_si.report import format_table


@dataclass(frozen=True)
class Speed:
    """What one directory measured.

    Args:
        name: of the directory.
        runtime: "PyTorch" or "ONNX Runtime", and the values of the weights.
        megabytes: of the files that hold graph and weights.
        load_seconds: until the first run may start, imports aside.
        prefill: tokens per second of a prompt (encoders: of a forward pass).
        decode: tokens per second after it; None for encoders.
        peak_megabytes: of the process, beyond what it held before loading.
    """

    name: str
    runtime: str
    megabytes: float
    load_seconds: float
    prefill: float
    decode: float | None
    peak_megabytes: float

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


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
        prompt: tokens of the prompt.
        new_tokens: generated after it.
        batch_size: prompts at once.
        repeats: turns; each directory computes once in a turn.
        threads: of each model; None is what the runtimes choose.
        device: of exports, as ``ORTSIModel.from_pretrained`` takes it.

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
        _runtime_of(path)
    context = multiprocessing.get_context("spawn")
    workers = []
    try:
        for path in paths:
            ours, theirs = context.Pipe()
            arguments = (theirs, path, prompt, new_tokens, batch_size, threads, device)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            workers.append((process, ours))
            # One after another, so that no load is measured beside another.
            _answer(ours, path)
        results: list[list[dict[str, float]]] = [[] for _ in paths]
        for turn in range(repeats + 1):
            for place, (_, connection) in enumerate(workers):
                connection.send("run")
                measured = _answer(connection, paths[place])
                if turn:  # the first turn warms up
                    results[place].append(measured)
        ends = []
        for place, (_, connection) in enumerate(workers):
            connection.send("end")
            ends.append(_answer(connection, paths[place]))
    finally:
        for process, connection in workers:
            connection.close()
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()
                process.join()
    return [_speed(path, turns, end) for path, turns, end in zip(paths, results, ends, strict=True)]


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
        _runtime_of(path),
        weight_bytes(path) / 1e6,
        end["load"],
        median(turn["prefill"] for turn in turns),
        median(turn["decode"] for turn in turns) if has_decode else None,
        end["peak"],
    )


def _runtime_of(path: Path) -> str:
    if any(path.glob("*.onnx")):
        return "ONNX Runtime"
    if (path / "config.json").is_file():
        return "PyTorch"
    raise CheckpointError(f"{str(path)!r} holds neither a checkpoint nor an export: give such directories.")


def weight_bytes(path: Path) -> int:
    """Size of the files that hold graph and weights, of an export or a checkpoint."""
    patterns = ("*.onnx", "*.onnx.data") if any(path.glob("*.onnx")) else ("*.safetensors", "*.bin")
    return sum(file.stat().st_size for pattern in patterns for file in path.glob(pattern))


def _work(
    connection: Connection,
    path: Path,
    prompt: int,
    new_tokens: int,
    batch_size: int,
    threads: int | None,
    device: str | None,
) -> None:
    """One process: loads, then computes when told to."""
    try:
        import torch

        torch.set_grad_enabled(False)
        if threads is not None:
            torch.set_num_threads(threads)
        _import_runtimes(path)
        before = _peak()
        started = time.perf_counter()
        model = _load(path, threads, device)
        load = time.perf_counter() - started
        run = _run_of(model, prompt, new_tokens, batch_size)
        connection.send("loaded")
        while connection.recv() == "run":
            connection.send(run())
        connection.send({"load": load, "peak": max(_peak() - before, 0) / 1e6})
    except Exception as error:
        # Errors of ours travel as they are; others might not survive the way between processes.
        known = isinstance(error, SIError)
        connection.send(error if known else CheckpointError(f"{str(path)!r}: {type(error).__name__}: {error}"))


def _import_runtimes(path: Path) -> None:
    """What loading would import otherwise, so that neither time nor memory of it counts."""
    from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM  # noqa: F401

    if _runtime_of(path) == "PyTorch":
        import transformers
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(path)
        getattr(transformers, (config.architectures or ["AutoModel"])[0], None)
    else:
        import onnxruntime  # noqa: F401


def _load(path: Path, threads: int | None, device: str | None) -> Any:
    if _runtime_of(path) == "PyTorch":
        from optimum_si.checkpoint.load import load_model

        return load_model(path).eval()
    import onnxruntime

    from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM
    from optimum_si.onnx.runtime.modeling import ORTSIModel

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    # A waiting process must not take cores from the one that computes.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    model = ORTSIModel.from_pretrained(path, device=device, session_options=options, verify=False)
    if model.takes_cache:
        return ORTSIModelForCausalLM(model.session, model.config, model.path, options)
    return model


def _run_of(model: Any, prompt: int, new_tokens: int, batch_size: int) -> Callable[[], dict[str, float]]:
    import torch

    config = model.config.get_text_config()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (batch_size, prompt), generator=generator)
    mask = torch.ones_like(ids)
    decodes = hasattr(model, "can_generate") and model.can_generate() and not model.config.is_encoder_decoder
    positions, needed = getattr(config, "max_position_embeddings", None), prompt + (new_tokens + 1 if decodes else 0)
    if positions is not None and needed > positions:
        raise ConfigurationError(
            f"prompt={prompt} and new_tokens={new_tokens} need {needed} positions, and the model has {positions}: "
            "lower them (--prompt, --new-tokens)."
        )

    def run() -> dict[str, float]:
        started = time.perf_counter()
        model(input_ids=ids, attention_mask=mask)
        prefill = time.perf_counter() - started
        measured = {"prefill": ids.numel() / prefill}
        if decodes:
            options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
            times = []
            for count in (1, new_tokens + 1):
                started = time.perf_counter()
                model.generate(ids, attention_mask=mask, min_new_tokens=count, max_new_tokens=count, **options)
                times.append(time.perf_counter() - started)
            measured["decode"] = batch_size * new_tokens / max(times[1] - times[0], 1e-9)
        return measured

    return run


def _peak() -> int:
    """Bytes of resident memory at most so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def summary(speeds: list[Speed]) -> str:
    """A table; ratios are to the first directory."""
    first = speeds[0]

    def ratio(value: float | None, base: float | None, digits: int = 1) -> str:
        if value is None or not base:
            return "-"
        return f"{value:.{digits}f} ({value / base:.2f} x)"

    header = ["directory", "runtime", "MB", "load s", "peak MB", "prefill tokens/s", "decode tokens/s"]
    rows = [
        [
            speed.name,
            speed.runtime,
            ratio(speed.megabytes, first.megabytes),
            ratio(speed.load_seconds, first.load_seconds, 2),
            ratio(speed.peak_megabytes, first.peak_megabytes, 0),
            ratio(speed.prefill, first.prefill, 0),
            ratio(speed.decode, first.decode, 0),
        ]
        for speed in speeds
    ]
    return f"{format_table(header, rows)}\nmedians of interleaved runs; ratios to {first.name}"


def plot(speeds: list[Speed], path: Path) -> None:
    """A bar chart of tokens per second.

    Raises:
        SIError: when matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SIError('the chart needs matplotlib: pip install "optimum-si[report]".') from error
    kinds = [("prefill", [speed.prefill for speed in speeds])]
    if any(speed.decode for speed in speeds):
        kinds.append(("decode", [speed.decode or 0 for speed in speeds]))
    figure = Figure(figsize=(4.5 * len(kinds), 0.6 * len(speeds) + 1.4), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        bars = axes.barh([speed.name for speed in speeds], values, color="#4c72b0")
        axes.bar_label(bars, fmt="%.0f", padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.set_title(f"{name}, tokens per second")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
