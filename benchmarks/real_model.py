"""What pruning a real language model costs and what it keeps: SmolLM2-135M-Instruct, each recipe as a user runs it.

    python benchmarks/real_model.py [--recipes dense wanda fast] [--targets 2:4 50%] [--repeat N] [--output FILE]
    python benchmarks/real_model.py --recipes dense wanda sparsegpt --peer --peer-python llmc/bin/python
    python benchmarks/real_model.py --scaling 8 16 30

A row is an `optimum-cli si prune` in a process of its own, calibrated on articles. With --output it is written as soon
as it is measured, and what the file holds is not measured again: remove it after a change of the library.

How to read it: F is one dense forward pass of the model's blocks over the calibration windows, the mean of one right
before the command and one right after. "command" is the time of the whole command, "run" what its report says (loading
and saving aside), both in F: these can be compared between machines, as seconds cannot. A row whose two F differ by
more than a tenth says so: the machine was not quiet. "peak" is the resident memory of the command at most. Perplexity
is measured on articles that calibration has not seen and on news, each with its ratio to the dense model's (x) and the
share of plain Wanda's gap that is closed; this needs the rows of dense and wanda.

--scaling cuts the model to its first blocks and measures time alone: "linear" is a block's time beside that in the
shortest model. 1.00 is linear; less shows what does not grow with the blocks, such as the head.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

from real_model_rows import DENSE, PEER, RECIPES, SPARSEGPT, WANDA, Bench, Row, peer_version
from whole_commands import CommandFailed


TARGETS = ("50%", "2:4", "4:8", "70%")
#: By how much two passes over the same windows differ on a quiet machine at most.
QUIET = 0.1
SET_UP = (
    "llm-compressor pins another version of transformers, so it needs an environment of its own: python -m venv llmc "
    '&& llmc/bin/pip install "llmcompressor==0.14.*", then add --peer-python llmc/bin/python.'
)

#: Widths of the columns.
NAMES, TIMES = {"recipe": 15, "target": 6}, {"F, s": 8, "command, F": 11, "run, F": 8, "peak, MB": 9}
QUALITY = {"articles": 11, "x": 8, "closed": 8, "news": 11, "x ": 8, "closed ": 8}
SCALING = {"blocks": 7, "F, s": 8, "command, F": 11, "run, F": 8, "run, s": 9, "s / block": 10, "linear": 7}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--recipes", nargs="+", default=tuple(RECIPES), choices=tuple(RECIPES), help="(default: all)")
    add("--targets", nargs="+", help="(default: 50%% 2:4 4:8 70%%; with --scaling 2:4)")
    add("--windows", type=int, default=32, help="of calibration (default: %(default)s)")
    add("--length", type=int, default=512, help="tokens of a window (default: %(default)s)")
    add("--test-windows", type=int, default=50, help="of each text (default: %(default)s)")
    add("--test-length", type=int, help="tokens of a window of test (default: --length)")
    add("--dataset", metavar="NAME", help="to calibrate on instead of the articles, as of `prune`, such as self")
    add("--threads", type=int, default=2, help="(default: %(default)s)")
    add("--repeat", type=int, default=1, help="commands of a row, whose medians are shown (default: %(default)s)")
    add("--model", metavar="DIR", help="another causal language model (default: SmolLM2-135M-Instruct)")
    add("--blocks", type=int, metavar="N", help="cut the model to its first N blocks")
    add("--scaling", type=int, nargs="*", metavar="N", help="time by the number of blocks (default: 8 16 30)")
    add("--peer", action="store_true", help="also SparseGPT by llm-compressor, on the same windows")
    add("--peer-python", metavar="PYTHON", help="the interpreter of an environment with llm-compressor 0.14")
    add("--output", type=Path, metavar="FILE", help="rows as JSON lines; goes on from those that it holds")
    args = parser.parse_args()
    if args.dataset and args.peer_python:
        parser.error("the peer is calibrated on the articles: leave out --dataset or --peer-python.")
    # As after Ctrl-C: the command under way ends too, and gigabytes of checkpoints are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    recipes = [*args.recipes]
    if args.peer_python:
        try:
            args.peer_version = peer_version(args.peer_python)
        except CommandFailed as error:
            sys.exit(f"llm-compressor cannot be imported by {args.peer_python} ({error.last_line}). {SET_UP}")
        recipes.append(PEER)
    try:
        with tempfile.TemporaryDirectory(prefix="si-real-model-") as folder:
            if args.scaling is None:
                complete = compare(args, recipes, Path(folder))
            else:
                complete = scale(args, recipes, Path(folder))
    except CommandFailed as error:
        sys.exit(str(error))
    if args.peer and not args.peer_python:
        print(f"\nThe row of llm-compressor is left out. {SET_UP}")
    sys.exit(0 if complete else 1)


def compare(args: argparse.Namespace, recipes: Sequence[str], folder: Path) -> bool:
    """Print the table of quality and cost row by row; whether every row could be measured."""
    bench = Bench(args, folder, args.blocks)
    sizes = f"{args.windows} windows of {args.length} tokens, {args.threads} threads"
    print(f"{bench.settings['model']}, {bench.settings['blocks']} blocks, calibrated on {sizes}")
    print(cells({name: name for name in NAMES | TIMES | QUALITY}, NAMES | TIMES | QUALITY), flush=True)
    complete = True
    dense = None
    if DENSE in recipes:
        dense = bench.row(DENSE, None)
        print(cells({"recipe": DENSE, **quality(dense, dense, None)}, NAMES | TIMES | QUALITY), flush=True)
    for target in args.targets or TARGETS:
        rows: dict[str, Row] = {}
        for recipe in recipes:
            if recipe == DENSE:
                continue
            row = attempt(bench, recipe, target)
            complete &= row is not None
            if row is not None:
                rows[recipe] = row
                shown = {"recipe": recipe, "target": target, **times(row), **quality(row, dense, rows.get(WANDA))}
                print(cells(shown, NAMES | TIMES | QUALITY) + noise(row), flush=True)
        if {SPARSEGPT, PEER} <= rows.keys():
            print(beside_peer(rows[SPARSEGPT], rows[PEER]), flush=True)
    return complete


def scale(args: argparse.Namespace, recipes: Sequence[str], folder: Path) -> bool:
    """Print the time of each recipe by the number of blocks; whether every row could be measured."""
    benches = []
    for blocks in args.scaling or (8, 16, 30):
        (place := folder / str(blocks)).mkdir()
        benches.append(Bench(args, place, blocks, quality=False))
    print(cells({name: name for name in NAMES | SCALING}, NAMES | SCALING), flush=True)
    complete = True
    for target in args.targets or ("2:4",):
        for recipe in recipes:
            if recipe == DENSE:
                continue
            first = None
            for bench in benches:
                row = attempt(bench, recipe, target)
                complete &= row is not None
                if row is None:
                    continue
                blocks, seconds = bench.settings["blocks"], median(row["run"])
                first = first or seconds / blocks
                shown = {"recipe": recipe, "target": target, "blocks": str(blocks), **times(row)}
                shown |= {"run, s": f"{seconds:.1f}", "s / block": f"{seconds / blocks:.2f}"}
                shown["linear"] = f"{seconds / blocks / first:.2f}"
                print(cells(shown, NAMES | SCALING) + noise(row), flush=True)
    return complete


def attempt(bench: Bench, recipe: str, target: str) -> Row | None:
    """A row; None, with the reason printed, where its command fails: the others are worth their time nevertheless."""
    try:
        return bench.row(recipe, target)
    except CommandFailed as error:
        print(error, file=sys.stderr)
        print(f"{recipe:<15} {target:>6}  failed: {error.last_line}", flush=True)
        return None


def times(row: Row) -> dict[str, str]:
    """Cells of :data:`TIMES`: medians over repetitions, each in the F around it."""
    forward = [mean(pair) for pair in row["forward"]]
    command, run = (
        median(seconds / unit for seconds, unit in zip(row[name], forward, strict=True)) for name in ("command", "run")
    )
    peak = f"{row['peak'] / 1e6:.0f}"
    return {"F, s": f"{median(forward):.2f}", "command, F": f"{command:.1f}", "run, F": f"{run:.1f}", "peak, MB": peak}


def quality(row: Row, dense: Row | None, wanda: Row | None) -> dict[str, str]:
    """Cells of :data:`QUALITY`; a dash where what it is compared with was not measured."""
    shown = {}
    for name, end in (("articles", ""), ("news", " ")):
        value = row[name]
        shown[name] = f"{value:.2f}" if value < 1e6 else f"{value:.2e}"
        shown[f"x{end}"] = "-" if dense is None else f"{value / dense[name]:.2f}"
        gap = 0.0 if dense is None or wanda is None else wanda[name] - dense[name]
        shown[f"closed{end}"] = f"{(wanda[name] - value) / gap:.0%}" if wanda and gap > 0 else "-"
    return shown


def noise(row: Row) -> str:
    """What follows a row in which the machine became quicker or slower meanwhile."""
    changes = [abs(after / before - 1) for before, after in row["forward"]]
    return f"  F moved by {max(changes):.0%}: not quiet" if max(changes) > QUIET else ""


def beside_peer(ours: Row, peer: Row) -> str:
    """SparseGPT of both, for the reader of one line."""
    took = median(ours["run"]) / median(peer["run"])
    peaks = f"{ours['peak'] / 1e6:.0f} against {peer['peak'] / 1e6:.0f} MB"
    return f"SparseGPT at {ours['target']} beside {peer['words']}: the run takes {took:.2f} of its call, in {peaks}"


def cells(shown: dict[str, str], widths: dict[str, int]) -> str:
    """One line of a table, whose first column is left-aligned; columns that are not shown stay empty."""
    texts = [f"{shown.get(name, '').strip():>{width}}" for name, width in widths.items()]
    first = next(iter(widths))
    return " ".join([f"{shown[first]:<{widths[first]}}", *texts[1:]])


if __name__ == "__main__":
    main()
