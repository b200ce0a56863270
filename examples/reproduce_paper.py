"""The paper's tables (arXiv 2602.21652): perplexity and zero-shot accuracy with and without Sparsity Induction.

    python examples/reproduce_paper.py --models opt-125m opt-350m
    python examples/reproduce_paper.py --models llama-7b --targets 2:4 --tasks zero-shot --device cuda --dtype float16
    python examples/reproduce_paper.py --models opt-125m=path/to/opt --calibration text.txt --evaluation held-out.txt

The paper calibrates with 128 samples of 2048 tokens of C4, takes 1 to 5 epochs and tests on WikiText-2; so does this,
from the Hub. NAME=PATH takes the weights from a folder, PATH alone is any other model. Two runs
make a row. With SI_QUICK=1 few short windows and one epoch are used. Time and latency: see reproduce_paper_speed.py.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from optimum_si import SIConfig, SIPruner, perplexity, task_accuracy
from optimum_si.config.groups import CalibrationConfig
from optimum_si.evaluation.perplexity import evaluation_texts, max_evaluation_windows
from optimum_si.evaluation.tasks import load_tasks, mean_score
from optimum_si.report import format_table


QUICK = os.environ.get("SI_QUICK") == "1"
HUB = {
    "opt-125m": "facebook/opt-125m",
    "opt-350m": "facebook/opt-350m",
    "opt-1.3b": "facebook/opt-1.3b",
    "opt-2.7b": "facebook/opt-2.7b",
    "llama-7b": "huggyllama/llama-7b",
    "llama-13b": "huggyllama/llama-13b",
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-2-13b": "meta-llama/Llama-2-13b-hf",
}
METHODS = ("magnitude", "wanda", "sparsegpt")
TARGETS = ("50%", "2:4", "4:8")

#: Perplexity on WikiText-2: of the dense model, or plain and with induction.
_PERPLEXITY = """\
target method    opt-125m      opt-350m     opt-1.3b     opt-2.7b    llama-7b    llama-13b
dense  -         27.65         22.00        14.62        12.47       5.68        5.09
50%    magnitude 193.36/52.85  97.78/49.55  1712.8/26.39 265.2/18.86 17.28/12.08 20.21/18.45
50%    wanda     38.99/38.00   36.19/34.78  18.40/18.27  14.22/14.19 7.26/7.04   6.15/6.04
50%    sparsegpt 36.97/35.79   31.40/31.30  17.40/17.45  13.46/13.45 7.17/7.13   6.22/6.12
2:4    magnitude 341.5/226.8   417.0/174.0  427.2/40.73  1153/31.14  42.54/18.55 18.36/15.55
2:4    wanda     79.89/79.11   112.6/94.80  28.16/27.54  21.25/20.23 11.53/10.51 9.60/8.32
2:4    sparsegpt 61.44/60.66   49.55/49.51  23.87/23.85  17.10/17.07 11.00/10.65 9.05/8.78
4:8    magnitude 169.1/122.9   160.7/74.17  240.2/28.20  166.9/21.44 16.83/13.97 13.87/13.25
4:8    wanda     53.17/53.06   59.12/54.30  22.17/21.88  16.57/16.47 8.58/8.15   7.40/6.90
4:8    sparsegpt 44.81/43.63   39.20/39.11  20.25/20.03  14.98/14.93 8.56/8.35   7.43/7.26
"""
#: Means of its six zero-shot tasks in percent, (base, with SI): four of its 36 pairs, all among the nine that lose.
_ZERO_SHOT = {
    ("llama-7b", "50%", "sparsegpt"): (52.37, 52.04),
    ("llama-2-7b", "50%", "sparsegpt"): (53.34, 53.10),
    ("llama-13b", "50%", "wanda"): (55.45, 55.32),
    ("llama-7b", "2:4", "magnitude"): (43.55, 42.66),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--models", nargs="+", default=["opt-125m"], metavar="NAME", help=f"{', '.join(HUB)}; NAME=PATH; or PATH")
    add("--methods", nargs="+", default=METHODS, choices=METHODS)
    add("--targets", nargs="+", default=TARGETS, choices=TARGETS)
    add("--calibration", default="c4", help="dataset or files (default: %(default)s)")
    add("--evaluation", default="wikitext2", help="dataset or files (default: %(default)s)")
    add("--samples", type=int, default=4 if QUICK else 128, help="windows (default: %(default)s)")
    add("--length", type=int, default=16 if QUICK else 2048, help="tokens of a window (default: %(default)s)")
    add("--epochs", type=int, default=1 if QUICK else 5, help="of induction (default: %(default)s)")
    add("--max-windows", type=int, default=2 if QUICK else None, help="of the evaluation (default: all)")
    add("--tasks", nargs="+", metavar="TASK", help='also accuracy: "zero-shot", or names of lm-eval')
    add("--task-folder", type=Path, help="YAML files of your own tasks")
    add("--limit", type=int, help="first examples of each task (default: all)")
    add("--device", help="such as cuda")
    add("--dtype", help="of the weights, such as float16 (default: as saved)")
    add("--json", action="store_true", help="print JSON instead of tables")
    args = parser.parse_args()

    # Read before hours of pruning: a mistyped file or task is found at once.
    texts = evaluation_texts(args.evaluation)
    tasks = load_tasks(args.tasks, args.task_folder) if args.tasks else None
    rows = [row for model in args.models for row in reproduce(model, texts, tasks, args)]
    print(json.dumps(rows, indent=2) if args.json else tables(rows, args.evaluation))


def reproduce(model: str, texts: list[str], tasks: Any, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The dense model, then each target and method, plain and with induction."""
    name, _, path = model.partition("=")
    path = path or HUB.get(name, name)
    published = published_of(name)
    rows = []
    for target, method in [("dense", "-"), *((target, method) for target in args.targets for method in args.methods)]:
        row = {"model": Path(name).name, "target": target, "method": method, **published[target, method]}
        for kind in ("base",) if target == "dense" else ("base", "si"):
            options = {"device": args.device, **({"dtype": args.dtype} if args.dtype else {})}
            pruner = SIPruner.from_pretrained(path, **options)
            if target != "dense":
                pruner.prune(recipe(method, target, kind == "si", args), dataset=args.calibration)
                row[f"{kind}_seconds"] = pruner.report.seconds
            row |= {f"{kind}_{key}": value for key, value in measured(pruner, texts, tasks, args).items()}
        rows.append(row)
    return rows


def recipe(method: str, target: str, induction: bool, args: argparse.Namespace) -> SIConfig:
    """The paper's: uniform over layers, embeddings and head dense."""
    goal: dict[str, Any] = {"pattern": target} if ":" in target else {"sparsity": float(target.rstrip("%")) / 100}
    data = CalibrationConfig(num_samples=args.samples, sequence_length=args.length)
    return SIConfig(method, **goal, calibration=data, induction={"epochs": args.epochs} if induction else None)


def measured(pruner: SIPruner, texts: list[str], tasks: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Perplexity, and the mean accuracy in percent where tasks are asked for."""
    windows = max_evaluation_windows(args.evaluation) if args.max_windows is None else args.max_windows
    length = args.length if QUICK else None
    result = {"perplexity": perplexity(pruner.model, pruner.tokenizer, texts, length, max_windows=windows)}
    if tasks is not None:
        scores = task_accuracy(pruner.model, pruner.tokenizer, tasks, limit=args.limit)
        mean = mean_score(scores)
        result |= {"tasks": {name: score.to_dict() for name, score in scores.items()}}
        result |= {"accuracy": None if mean is None else 100 * mean.value}
    return result


def published_of(name: str) -> dict[tuple[str, str], dict[str, float]]:
    """The paper's numbers of a model, by target and method; nothing for a model that it does not have."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    (_, _, *models), *lines = [line.split() for line in _PERPLEXITY.splitlines()]
    for target, method, *cells in lines:
        values = [float(value) for value in cells[models.index(name)].split("/")] if name in models else []
        # The dense model has one value.
        found[target, method] = dict(zip(("paper_base_perplexity", "paper_si_perplexity"), values, strict=False))
    for (model, target, method), (base, si) in _ZERO_SHOT.items():
        if model == name:
            found[target, method] |= {"paper_base_accuracy": base, "paper_si_accuracy": si}
    return found


def tables(rows: list[dict[str, Any]], evaluation: str) -> str:
    """The paper's pairs beside ours, for each thing that was measured."""
    parts = [f"perplexity: the paper's on WikiText-2, ours on {evaluation}", table(rows, "perplexity")]
    if any("base_accuracy" in row for row in rows):
        parts += [
            "",
            "mean accuracy in percent: the paper's of six tasks, ours of those asked for; sets of tasks differ",
        ]
        parts.append(table(rows, "accuracy"))
    return "\n".join(parts)


def table(rows: list[dict[str, Any]], measure: str) -> str:
    header = ["model", "target", "method", "paper base", "-> +SI", "ours base", "-> +SI"]
    keys = [f"{source}{kind}_{measure}" for source in ("paper_", "") for kind in ("base", "si")]

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    names = ("model", "target", "method")
    return format_table(
        header, [[*(row[name] for name in names), *(cell(row.get(key)) for key in keys)] for row in rows]
    )


if __name__ == "__main__":
    main()
