"""What one process of a benchmark does: load a model, and compute when it is told to."""

import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from optimum_si.errors import CheckpointError, ConfigurationError, SIError

from .directories import runtime_of


def compute_when_told(
    connection: Connection,
    path: Path,
    prompt: int,
    new_tokens: int,
    batch_size: int,
    threads: int | None,
    device: str | None,
) -> None:
    """Load a model, then compute and answer whenever told to.

    Args:
        connection: is sent "loaded"; then for each "run" tokens per second, and for another word seconds to load and
            megabytes at most. An error is sent in place of an answer.
        path: a directory with a checkpoint or an export.
        prompt: number of tokens of the prompt.
        new_tokens: tokens that are generated after it.
        batch_size: number of prompts at once.
        threads: threads of the model; None is the runtime's choice.
        device: device of an export.
    """
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

    if runtime_of(path) == "PyTorch":
        import transformers
        from transformers import AutoConfig

        from optimum_si.checkpoint.claims import check_claims

        check_claims(str(path))
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        getattr(transformers, (config.architectures or ["AutoModel"])[0], None)
    else:
        import onnxruntime  # noqa: F401


def _load(path: Path, threads: int | None, device: str | None) -> Any:
    if runtime_of(path) == "PyTorch":
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
