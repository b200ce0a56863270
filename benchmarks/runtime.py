"""What ONNX Runtime brings, and what the wrapper around it costs: decoding in PyTorch, in our model, in a bare loop.

    python benchmarks/runtime.py [MODEL ...] [--prompt 16] [--new-tokens 64] [--repeats 7] [--threads N]

Without a model, a random Llama of 50 million parameters is measured: time does not depend on the weights' values. All
three compute in turns in one process, on the same threads; medians, and ratios to PyTorch.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from optimum_si import ORTSIModelForCausalLM
from optimum_si.checkpoint.load import load_model
from optimum_si.onnx import export
from optimum_si.report import format_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="directories or Hub ids (default: a random Llama of 50 M)")
    parser.add_argument("--prompt", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--new-tokens", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    header = ["model", "PyTorch", "ours", "bare loop", "ours / PyTorch", "ours - bare", "bare / ours"]
    rows = [measured(name, args) for name in args.models or ["Llama, 50 M"]]
    print(f"decoding, milliseconds a token, {args.threads} threads")
    print(format_table(header, rows))


def measured(name: str, args: argparse.Namespace) -> list[str]:
    """A row of the table."""
    model = (load_model(name) if Path(name).is_dir() or "/" in name else random_llama()).float().eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    ids = torch.randint(1, model.config.vocab_size, (1, args.prompt), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        export(model, Path(folder) / "onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        exported = ORTSIModelForCausalLM.from_pretrained(Path(folder) / "onnx", session_options=options)
        runs: list[Callable[[int], None]] = [
            lambda count: generated(model, ids, count),
            lambda count: generated(exported, ids, count),
            lambda count: bare(exported.session, ids.numpy(), count),
        ]
        times: list[list[float]] = [[] for _ in runs]
        for turn in range(args.repeats + 1):
            for run, found in zip(runs, times, strict=True):
                # The prompt and the first token are taken away again: what is left is decoding alone.
                first, all_of_them = seconds(run, 1), seconds(run, args.new_tokens + 1)
                if turn:
                    found.append(1000 * (all_of_them - first) / args.new_tokens)
    torch_time, ours, bare_time = map(median, times)
    label = Path(name).name
    return [
        label,
        f"{torch_time:.2f}",
        f"{ours:.2f}",
        f"{bare_time:.2f}",
        f"{torch_time / ours:.2f} x faster",
        f"{ours - bare_time:.2f} ms",
        f"{bare_time / ours:.2f}",
    ]


def random_llama(**sizes: Any) -> PreTrainedModel:
    """A Llama of 50 M, or of other ``sizes``, fields of its config."""
    torch.manual_seed(0)
    usual: dict[str, Any] = {
        "vocab_size": 8192,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
    }
    return LlamaForCausalLM(LlamaConfig(**usual | sizes, tie_word_embeddings=True)).eval()


def generated(model: PreTrainedModel | ORTSIModelForCausalLM, ids: torch.Tensor, count: int) -> None:
    with torch.no_grad():
        model.generate(ids, max_new_tokens=count, min_new_tokens=count, do_sample=False)


def bare(session: onnxruntime.InferenceSession, ids: np.ndarray, count: int) -> None:
    """The least that decoding takes: a binding, the greatest logit, and nothing else."""
    binding = session.io_binding()
    names = [value.name for value in session.get_outputs()]
    caches = {value.name: value.shape for value in session.get_inputs() if value.name.startswith("past_key_values")}
    cache: list = []
    length = 0
    for _ in range(count):
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
        tokens = ids.shape[1]
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", np.ones((1, length + tokens), np.int64))
        binding.bind_cpu_input("position_ids", np.arange(length, length + tokens)[None])
        for number, (name, shape) in enumerate(caches.items()):
            if cache:
                binding.bind_ortvalue_input(name, cache[number])
            else:
                binding.bind_cpu_input(name, np.empty((1, shape[1], 0, shape[3]), np.float32))
        for name in names:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        logits, *cache = binding.get_outputs()
        length += tokens
        ids = logits.numpy()[:, -1].argmax(-1)[:, None]


def seconds(run: Callable[[int], None], count: int) -> float:
    started = time.perf_counter()
    run(count)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
