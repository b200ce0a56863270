"""What a run costs, as ratios within one process: two plain forward passes, Wanda, SI; and the fast update.

    python benchmarks/speed.py [MODEL ...] [--windows 128] [--length 256] [--epochs 3]

Without a model, a random Llama of the same small size is measured: time does not depend on the weights' values.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from optimum_si import SIConfig, SIPruner
from optimum_si.models.forward.layer_inputs import collect
from optimum_si.models.forward.stops import Stop
from optimum_si.models.weight_view import linear_views
from optimum_si.report import format_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="directories or Hub ids (default: a random Llama)")
    parser.add_argument("--windows", type=int, default=128)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=512, help="of each of 128 windows of the fast update")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved; medians are shown (default: %(default)s)")
    args = parser.parse_args()
    rows = [run_costs(name, args) for name in args.models or [None]]
    print(format_table(["model", "2 forward passes", "wanda", "SI", "wanda / 2 passes", "SI / wanda"], rows))
    print()
    print(format_table(["refresh of scores", "recomputed", "fast update", "ratio"], fast_update(args.tokens)))


def run_costs(name: str | None, args: argparse.Namespace) -> list[str]:
    """Seconds of two forward passes over the calibration set, of plain Wanda and of SI; load and save aside."""

    def load() -> PreTrainedModel:
        return small_llama(192, 4) if name is None else SIPruner.from_pretrained(name).model

    model = load()
    vocabulary = model.config.vocab_size if name is None else len(AutoTokenizer.from_pretrained(name))
    data = torch.randint(vocabulary, (args.windows, args.length), generator=torch.Generator().manual_seed(0))
    backbone = getattr(model, model.base_model_prefix, model)

    def passes() -> None:
        with torch.no_grad():
            for batch in [*data.split(8), *data.split(8)]:
                backbone(batch)

    times: dict[str, list[float]] = {"passes": [], "wanda": [], "si": []}
    for _ in range(args.repeats):
        times["passes"].append(seconds(passes))
        for kind, induction in (("wanda", None), ("si", {"epochs": args.epochs})):
            pruner = SIPruner(load())
            config = SIConfig("wanda", pattern="2:4", induction=induction)
            times[kind].append(seconds(lambda p=pruner, c=config: p.prune(c, data, progress=False)))
    passed, wanda, si = (median(values) for values in times.values())
    cells = [f"{passed:.2f} s", f"{wanda:.2f} s", f"{si:.2f} s", f"{wanda / passed:.2f}", f"{si / wanda:.2f}"]
    return [name or "random Llama", *cells]


def fast_update(length: int) -> list[list[str]]:
    """Refreshing the moments of a 1024-wide block's inputs after a change of scale: 128 windows, or none."""
    model = small_llama(1024, 1)
    block = model.model.layers[0]
    tokens = torch.randn(128, length, 1024)
    positions = model.model.rotary_emb(tokens[:1], torch.arange(length)[None])
    arguments = {"position_embeddings": positions, "attention_mask": None}
    views = linear_views(block, "block")
    rows = []
    for label, gram in (("diagonal (Wanda)", False), ("full Gram (SparseGPT)", True)):
        stops = [Stop(0, (batch,), arguments) for batch in tokens.split(8)]
        begun = time.perf_counter()
        found, _ = collect(block, views, stops, 128 * length, gram, keep_outputs=False)
        recomputed = time.perf_counter() - begun
        moments = [layer_input.moments for layer_input in found]
        scales = [torch.rand(len(each.mean)) + 0.5 for each in moments]

        def refresh(moments: list = moments, scales: list = scales) -> None:
            for each, scale in zip(moments, scales, strict=True):
                each.transformed(scale, each.mean)

        updated = median(seconds(refresh) for _ in range(5))
        rows.append([label, f"{recomputed:.2f} s", f"{updated * 1000:.2f} ms", f"{recomputed / updated:.0f} x"])
    return rows


def small_llama(width: int, layers: int) -> LlamaForCausalLM:
    """A random Llama, head size 32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 64,
        max_position_embeddings=512,
    )
    return LlamaForCausalLM(config).eval()


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
