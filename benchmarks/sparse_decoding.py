"""A whole decoder with sparse weights: time a token, size and perplexity beside those of dense weights.

    python benchmarks/sparse_decoding.py [MODEL] [--new-tokens 32] [--repeats 7] [--threads N] [--windows 24]

Without a model, a random Llama is measured: two layers of the shape of TinyLlama (2048 x 5632) with a vocabulary that
has as large a share of the weights, 111 million in all. Time and size do not depend on the weights' values, and its
perplexity (about the size of its vocabulary) only shows whether the same is computed. Linear layers are pruned by
magnitude here, whatever the model was before; embeddings and head stay as they are, in fp32. All exports decode in
turns in one process; ratios are of medians, to dense fp32. Perplexity is compared with that of the same pruned model
in PyTorch.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
import torch
from corpus import windows
from runtime import bare, random_llama, seconds
from transformers import AutoTokenizer, PreTrainedModel

from optimum_si import ORTSIModelForCausalLM, perplexity
from optimum_si.checkpoint.load import load_model
from optimum_si.models.structure import find_structure
from optimum_si.onnx import export
from optimum_si.report import format_table


#: Pattern or share of zeros, and how it is exported.
VARIANTS = (
    ("2:4", ("dense fp32", "dense int8", "dense int4", "sparse fp32", "sparse fp16", "sparse int8", "sparse int4")),
    ("4:8", ("sparse fp16",)),
    ("50%", ("sparse fp16",)),
    ("90%", ("sparse fp32",)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="directory or Hub id (default: a random Llama of 111 M)")
    parser.add_argument("--new-tokens", type=int, default=32, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    parser.add_argument("--windows", type=int, default=24, help="of 128 tokens for perplexity (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        exports = [found for pattern, names in VARIANTS for found in exported(args, pattern, names, Path(folder))]
        times = decoding_times(exports, args)
    rows = [
        [
            found.pattern,
            found.name,
            f"{spent:.2f}",
            f"{times[0] / spent:.2f} x",
            f"{found.size / exports[0].size:.3f}",
            f"{found.perplexity:.4f}",
            f"{found.expected:.4f}",
        ]
        for found, spent in zip(exports, times, strict=True)
    ]
    print(f"decoding with {args.threads} thread{'s' * (args.threads > 1)}")
    print(format_table(["zeros", "export", "ms a token", "faster", "of the size", "perplexity", "PyTorch"], rows))


@dataclass
class Exported:
    """One export: bytes of the graph and its weights, perplexity of it and of the model that it was made from."""

    pattern: str
    name: str
    size: int
    model: ORTSIModelForCausalLM
    perplexity: float
    expected: float


def exported(args: argparse.Namespace, pattern: str, names: tuple[str, ...], folder: Path) -> Iterator[Exported]:
    model, texts = (loaded if args.model else tiny_llama)(args)
    prune(model, pattern)
    expected = perplexity(model, texts=texts, progress=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    for name in names:
        weights, values = name.split()
        path = export(model, folder / pattern / name, weights=weights, values=values)
        size = sum(file.stat().st_size for file in path.glob("model.onnx*"))
        opened = ORTSIModelForCausalLM.from_pretrained(path, session_options=options)
        found = perplexity(opened, texts=texts, progress=False)
        yield Exported(pattern, name, size, opened, found, expected)


def decoding_times(exports: list[Exported], args: argparse.Namespace) -> list[float]:
    """Milliseconds a token of each, medians of turns."""
    prompt = np.arange(16)[None]
    times: list[list[float]] = [[] for _ in exports]
    for turn in range(args.repeats + 1):
        for found, spent in zip(exports, times, strict=True):

            def run(count: int, session: onnxruntime.InferenceSession = found.model.session) -> None:
                bare(session, prompt, count)

            # The prompt and the first token are taken away again: what is left is decoding alone.
            first, whole = seconds(run, 1), seconds(run, args.new_tokens + 1)
            if turn:
                spent.append(1000 * (whole - first) / args.new_tokens)
    return [median(spent) for spent in times]


def loaded(args: argparse.Namespace) -> tuple[PreTrainedModel, torch.Tensor]:
    """The model in fp32, and held-out windows of the standard library's sources."""
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    texts = windows(tokenizer, "test", args.windows, 128, random_starts=False)
    return load_model(args.model).float().eval(), torch.as_tensor(texts)


def tiny_llama(args: argparse.Namespace) -> tuple[PreTrainedModel, torch.Tensor]:
    """Two layers of TinyLlama's shape, and random tokens."""
    model = random_llama(
        vocab_size=4096,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=2,
        num_attention_heads=32,
        num_key_value_heads=32,
    )
    return model, torch.randint(0, model.config.vocab_size, (args.windows, 128))


@torch.no_grad()
def prune(model: PreTrainedModel, pattern: str) -> None:
    """Zero the smallest weights of the linear layers of all blocks."""
    for block in find_structure(model).blocks:
        for layer in block.module.modules():
            if isinstance(layer, torch.nn.Linear):
                size = layer.weight.abs()
                if ":" in pattern:
                    kept, of = map(int, pattern.split(":"))
                    groups = size.view(len(size), -1, of)
                    least = groups.topk(kept).values[..., -1:]
                    layer.weight *= (groups >= least).view_as(size)
                else:
                    least = size.flatten().kthvalue(int(float(pattern[:-1]) / 100 * size.numel())).values
                    layer.weight *= size > least


if __name__ == "__main__":
    main()
