"""A whole decoder with sparse weights: time a token, size and perplexity beside those of the same weights, dense.

    python benchmarks/sparse_decoding.py [MODEL] [--new-tokens 48] [--repeats 7] [--threads N] [--windows 24]

Without a model, a random Llama of 81 million parameters is measured: time and size do not depend on the weights'
values, and its perplexity (about the size of its vocabulary) only shows whether the same is computed. Its linear
layers are pruned by magnitude here, whatever the model was before; embeddings and head stay as they are, in fp32. All
variants of a pattern decode in turns in one process; ratios are of medians, to the dense fp32 export.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import onnxruntime
import torch
from corpus import windows
from runtime import bare, seconds
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from optimum_si import ORTSIModelForCausalLM, perplexity
from optimum_si.loading import load_model
from optimum_si.models.blocks import find_structure
from optimum_si.onnx import export
from optimum_si.reporting import format_table


#: Pattern or share of zeros, and exports of it.
VARIANTS = (
    ("2:4", ("dense fp32", "dense int8", "dense int4", "sparse fp32", "sparse fp16", "sparse int8", "sparse int4")),
    ("4:8", ("dense fp32", "sparse fp16", "sparse int8")),
    ("50%", ("dense fp32", "sparse fp16")),
    ("90%", ("dense fp32", "sparse fp32", "sparse fp16")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="directory or Hub id (default: a random Llama of 81 M)")
    parser.add_argument("--new-tokens", type=int, default=48, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default: %(default)s)")
    parser.add_argument("--windows", type=int, default=24, help="of 128 tokens for perplexity (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [row for pattern, kinds in VARIANTS for row in measured(args, pattern, kinds)]
    print(f"decoding with {args.threads} thread{'s' * (args.threads > 1)}")
    print(format_table(["zeros", "export", "ms a token", "faster", "of the size", "perplexity", "PyTorch"], rows))


def measured(args: argparse.Namespace, pattern: str, kinds: tuple[str, ...]) -> Iterator[list[str]]:
    """A row for each export of one pattern."""
    model, texts = (loaded if args.model else random_llama)(args)
    prune(model, pattern)
    expected = perplexity(model, texts=texts, progress=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    prompt = texts[:1, :16].numpy()
    with tempfile.TemporaryDirectory() as name:
        found, sizes, times = {}, {}, {kind: [] for kind in kinds}
        for kind in kinds:
            weights, values = kind.split()
            path = export(model, Path(name) / kind, weights=weights, values=values)
            sizes[kind] = sum(file.stat().st_size for file in path.glob("model.onnx*"))
            found[kind] = ORTSIModelForCausalLM.from_pretrained(path, session_options=options)
        for turn in range(args.repeats + 1):
            for kind, exported in found.items():
                # The prompt and the first token are taken away again: what is left is decoding alone.
                first = seconds(lambda count, exported=exported: bare(exported.session, prompt, count), 1)
                whole = seconds(
                    lambda count, exported=exported: bare(exported.session, prompt, count), args.new_tokens + 1
                )
                if turn:
                    times[kind].append(1000 * (whole - first) / args.new_tokens)
        for kind, exported in found.items():
            yield [
                pattern,
                kind,
                f"{median(times[kind]):.2f}",
                f"{median(times['dense fp32']) / median(times[kind]):.2f} x",
                f"{sizes[kind] / sizes['dense fp32']:.3f}",
                f"{perplexity(exported, texts=texts, progress=False):.4f}",
                f"{expected:.4f}",
            ]


def loaded(args: argparse.Namespace) -> tuple[PreTrainedModel, torch.Tensor]:
    """The model in fp32, and held-out windows of the standard library's sources."""
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    texts = windows(tokenizer, "test", args.windows, 128, random_starts=False)
    return load_model(args.model).float().eval(), torch.as_tensor(texts)


def random_llama(args: argparse.Namespace) -> tuple[PreTrainedModel, torch.Tensor]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=6,
        num_attention_heads=16,
        num_key_value_heads=16,
        tie_word_embeddings=True,
    )
    texts = torch.randint(0, config.vocab_size, (args.windows, 128))
    return LlamaForCausalLM(config).eval(), texts


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
