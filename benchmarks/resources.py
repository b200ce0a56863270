"""Memory and time by model size: measured on random Llamas, a process each, and modeled for larger ones.

    python benchmarks/resources.py [--sizes 25 60 130] [--windows 32] [--length 256] [--epochs 1] [--method sparsegpt]

Times do not depend on the weights' values. The model of memory is checked against each measurement, and then used for
sizes that no small machine holds; the model of time is the last measured size, scaled by parameters and tokens.
"""

import argparse
import multiprocessing
import resource
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from optimum_si.report import format_table


@dataclass(frozen=True)
class Size:
    """A Llama: name, width, width of the MLP, blocks, vocabulary."""

    name: str
    width: int
    inner: int
    blocks: int
    vocabulary: int

    @property
    def block(self) -> int:
        """Weights of one block's linear layers."""
        return 4 * self.width**2 + 3 * self.width * self.inner

    @property
    def parameters(self) -> int:
        """Weights of the model, embeddings and head apart."""
        return self.blocks * self.block + 2 * self.vocabulary * self.width


MEASURED = {
    25: Size("25 M", 384, 1024, 8, 8192),
    60: Size("60 M", 512, 1408, 16, 8192),
    130: Size("130 M", 768, 2048, 16, 8192),
    350: Size("350 M", 1024, 2816, 24, 8192),
}
LARGER = [
    Size("1.3 B", 2048, 5632, 24, 32000),
    Size("7 B", 4096, 11008, 32, 32000),
    Size("13 B", 5120, 13824, 40, 32000),
]

#: What one block holds beside itself while it is treated, in copies of its weights in fp32: the widened block, the
#: plain and the best candidate's weights, a candidate under trial, and in learning scores and gradients.
COPIES = {False: 3.0, True: 6.0}
#: What libraries and allocators hold on to, whatever the size.
FIXED = 0.15 * 2**30
#: Streams of hidden states: inputs of the pruned and of the dense model, and the outputs that replace them.
STREAMS = {False: 2.0, True: 4.0}


def modeled(size: Size, tokens: int, weight_bytes: int, gram: bool, induction: bool) -> float:
    """Peak bytes: weights, streams of hidden states, one block's working copies, Gram matrices of its inputs."""
    weights = size.parameters * weight_bytes
    streams = STREAMS[induction] * tokens * size.width * weight_bytes
    block = COPIES[induction] * size.block * 4
    grams = (3 * size.width**2 + size.inner**2) * 4 * 3 if gram else 0
    return FIXED + weights + streams + block + grams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, choices=MEASURED, default=[25, 60, 130])
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--method", choices=("wanda", "sparsegpt"), default="sparsegpt")
    args = parser.parse_args()
    tokens, gram = args.windows * args.length, args.method == "sparsegpt"
    rows = []
    seconds: dict[bool, float] = {}
    for size in (MEASURED[number] for number in args.sizes):
        for induction in (False, True):
            took, peak = measured(size, args, induction)
            model = modeled(size, tokens, 4, gram, induction)
            seconds[induction] = took / (size.blocks * size.block * tokens)
            rows.append([size.name, name(args, induction), f"{took:.0f} s", gib(peak), gib(model), "fp32, measured"])
    for size in LARGER:
        for induction in (False, True):
            full = 128 * 2048
            took = seconds[induction] * size.blocks * size.block * full
            model = modeled(size, full, 2, gram, induction)
            rows.append([size.name, name(args, induction), f"{took / 3600:.0f} h", "", gib(model), "bf16, modeled"])
    print(f"measured with {args.windows} windows of {args.length} tokens, modeled for 128 of 2048; on this machine")
    print(format_table(["parameters", "run", "time", "peak", "model of it", "weights"], rows))


def measured(size: Size, args: argparse.Namespace, induction: bool) -> tuple[float, float]:
    """Seconds, and bytes at the peak beyond what the process held before the model."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=work, args=(there, size, args, induction))
    process.start()
    result = here.recv()
    process.join()
    return result


def work(connection: Connection, size: Size, args: argparse.Namespace, induction: bool) -> None:
    """One run, in a process of its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from optimum_si import SIConfig, SIPruner

    before = peak()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.blocks,
        num_attention_heads=size.width // 64,
        max_position_embeddings=args.length,
    )
    pruner = SIPruner(LlamaForCausalLM(config).eval())
    data = torch.randint(size.vocabulary, (args.windows, args.length), generator=torch.Generator().manual_seed(0))
    recipe = SIConfig(args.method, pattern="2:4", induction={"epochs": args.epochs} if induction else None)
    begun = time.perf_counter()
    pruner.prune(recipe, data, progress=False)
    connection.send((time.perf_counter() - begun, peak() - before))


def peak() -> int:
    """Bytes of resident memory at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def name(args: argparse.Namespace, induction: bool) -> str:
    return f"{args.method}, SI {args.epochs} epoch{'s' * (args.epochs > 1)}" if induction else args.method


def gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"


if __name__ == "__main__":
    main()
