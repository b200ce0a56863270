"""What induction brings: perplexity of language models with and without SI, per method and target.

    python benchmarks/quality.py MODEL [MODEL ...] [--windows 128] [--length 256] [--reconstruction admm] [--json FILE]
    python benchmarks/quality.py --all [MODEL ...] minilm [--json FILE]

Calibrated and tested on disjoint files of Python's standard library (``corpus.py``), so it needs no download beside
the models; best on models that know code. ``--all`` measures every mechanism alone, one added to the other, and the
presets, on held-out text of the calibration's kind and of another (``ablation.py``); ``minilm`` is the sentence
encoder of the demo.
"""

import argparse
import json
from pathlib import Path

import ablation
from corpus import windows
from subjects import ENCODER
from transformers import AutoTokenizer

from optimum_si import SIConfig, SIPruner, perplexity
from optimum_si.config.choices import RECONSTRUCTIONS
from optimum_si.report import format_table


METHODS = ("magnitude", "wanda", "sparsegpt")
TARGETS = ("50%", "60%", "2:4", "4:8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="directories or Hub ids of causal language models, or minilm")
    parser.add_argument("--windows", type=int, help="for calibration (default: 128; minilm 96)")
    parser.add_argument("--length", type=int, help="tokens of a window (default: 256; minilm 128)")
    parser.add_argument("--test-windows", type=int, default=160, help="(default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="every mechanism, and the presets")
    parser.add_argument("--rows", nargs="+", help="with --all, only these rows")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--targets", nargs="+", help="such as 50%% or 2:4")
    parser.add_argument("--reconstruction", default="none", choices=RECONSTRUCTIONS, help="in both (default: none)")
    parser.add_argument("--json", type=Path, help="also write the results there; --all goes on from what is in it")
    args = parser.parse_args()
    if args.all:
        return ablation.run(args.models or [ENCODER], args.targets or ablation.TARGETS, args)
    if not args.models:
        parser.error("name a model, or take --all, which measures minilm where none is named")
    rows = [row for model in args.models for row in measure(model, args)]
    header = ["model", "method", "target", "dense", "plain", "SI", "gap closed", "SI / plain", "s plain", "s SI"]
    print(format_table(header, [formatted(row) for row in rows]))
    for method in args.methods:
        shares = [row["closed"] for row in rows if row["method"] == method]
        worst = max(row["si"] / row["plain"] for row in rows if row["method"] == method)
        print(f"{method}: mean share of the gap closed {sum(shares) / len(shares):.1%}, worst SI / plain {worst:.4f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measure(path: str, args: argparse.Namespace) -> list[dict]:
    """A row for each method and target of one model."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    calibration = windows(tokenizer, "calib", args.windows or 128, args.length or 256, random_starts=True)
    test = windows(tokenizer, "test", args.test_windows, args.length or 256, random_starts=False)
    dense = perplexity(SIPruner.from_pretrained(path).model, tokenizer, test, progress=False)
    rows = []
    for method in args.methods:
        for target in args.targets or TARGETS:
            found = {}
            for name, induction in (("plain", None), ("si", True)):
                pruner = SIPruner.from_pretrained(path)
                recipe = SIConfig(method, **_target(target), induction=induction, reconstruction=args.reconstruction)
                pruner.prune(recipe, calibration, progress=False)
                found[name] = perplexity(pruner.model, tokenizer, test, progress=False)
                found[f"{name}_seconds"] = pruner.report.seconds
            closed = (found["plain"] - found["si"]) / (found["plain"] - dense)
            rows.append(
                {
                    "model": Path(path).name,
                    "method": method,
                    "target": target,
                    "dense": dense,
                    **found,
                    "closed": closed,
                }
            )
            print(*formatted(rows[-1]), flush=True)
    return rows


def formatted(row: dict) -> list[str]:
    """One row as table cells."""
    return [
        row["model"],
        row["method"],
        row["target"],
        f"{row['dense']:.2f}",
        f"{row['plain']:.3f}",
        f"{row['si']:.3f}",
        f"{row['closed']:.1%}",
        f"{row['si'] / row['plain']:.4f}",
        f"{row['plain_seconds']:.1f}",
        f"{row['si_seconds']:.1f}",
    ]


def _target(text: str) -> dict:
    return {"pattern": text} if ":" in text else {"sparsity": float(text.rstrip("%")) / 100}


if __name__ == "__main__":
    main()
