"""The rows of ``real_model.py``: which commands are measured, how, and which are known from an earlier run."""

import json
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from whole_commands import Finished, run_measured


Row = dict[str, Any]

STEPS = Path(__file__).with_name("real_model_steps.py")
PEER_WORKER = Path(__file__).parents[1] / "examples/llm_compressor_prune.py"
DENSE, WANDA, SPARSEGPT, PEER = "dense", "wanda", "sparsegpt", "llm-compressor"
#: Words of each command. What is not a preset says what it leaves out, so that a row means the same whatever the
#: defaults are.
RECIPES = {
    DENSE: "",
    WANDA: "--method wanda --no-induction --reconstruction none --no-recovery",
    "si-wanda": "--method wanda --epochs 3 --reconstruction none --no-recovery",
    SPARSEGPT: "--method sparsegpt --no-induction --reconstruction none --no-recovery",
    "admm": "--method wanda --no-induction --reconstruction admm --no-recovery",
    "fast": "--preset fast",
    "best": "--preset best",
}


class Bench:
    """One model and its texts in a folder, and the commands that are measured on it.

    Args:
        args: of the command line.
        folder: for texts and checkpoints.
        blocks: to cut the model to; None leaves it.
        quality: whether perplexity is measured beside time.

    Raises:
        CommandFailed: when the model cannot be had or the texts are too short.
    """

    def __init__(self, args: Namespace, folder: Path, blocks: int | None, quality: bool = True) -> None:
        self.args, self.folder, self.quality = args, folder, quality
        self.threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        sizes = {"windows": args.windows, "length": args.length}
        subject = self._step("prepare", model=args.model, blocks=blocks, **sizes)
        self.model = subject["model"]
        self.settings = {"model": subject["name"], "blocks": subject["blocks"], "threads": args.threads, **sizes}
        self.settings["test_windows"] = args.test_windows if quality else None
        self.test_length = args.test_length or args.length
        if self.test_length != args.length:
            self.settings["test_length"] = self.test_length
        if args.dataset:
            self.settings["dataset"] = args.dataset
        self._known = read_rows(args.output)

    def row(self, recipe: str, target: str | None) -> Row:
        """A row that the output holds, or that is measured now and written to it.

        Raises:
            CommandFailed: by a command of it.
        """
        words = f"llmcompressor=={self.args.peer_version}" if recipe == PEER else RECIPES[recipe]
        key = {"recipe": recipe, "target": target, "words": words, "settings": self.settings}
        for row in reversed(self._known):
            # A dense model takes no time here, so there is nothing to repeat.
            enough = recipe == DENSE or len(row.get("command", ())) >= self.args.repeat
            if enough and {name: row.get(name) for name in key} == key:
                return row
        row = {**key, **(self._perplexities(self.model) if target is None else self._measured(recipe, target))}
        if self.args.output:
            with self.args.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return row

    def _measured(self, recipe: str, target: str) -> Row:
        """Seconds of each repetition, the highest peak, and perplexities, which are the same in each."""
        row: Row = {"command": [], "run": [], "forward": [], "peak": 0}
        for _ in range(self.args.repeat):
            with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                output = Path(scratch, "pruned")
                before = self._forward_seconds()
                done = run_measured(self._command(recipe, target, output), self.threads)
                row["forward"].append([before, self._forward_seconds()])
                row["command"].append(done.seconds)
                row["run"].append(_run_seconds(recipe, done, output))
                row["peak"] = max(row["peak"], done.peak_bytes)
                if self.quality and "articles" not in row:
                    row.update(self._perplexities(output))
        return row

    def _command(self, recipe: str, target: str, output: Path) -> list[object]:
        if recipe == PEER:
            windows = self.folder / "windows.safetensors"
            return [self.args.peer_python, PEER_WORKER, self.model, windows, SPARSEGPT, target, output]
        goal = ["--pattern", target] if ":" in target else ["--sparsity", float(target.rstrip("%")) / 100]
        dataset = self.args.dataset or self.folder / "calibration.jsonl"
        data = ["--dataset", dataset, "--num-samples", self.args.windows]
        # What `optimum-cli` starts, by the interpreter that runs this.
        cli = [sys.executable, "-m", "optimum.commands.optimum_cli", "si", "prune"]
        words = [*goal, *data, "--sequence-length", self.args.length, *RECIPES[recipe].split()]
        return [*cli, "-m", self.model, "-o", output, *words]

    def _forward_seconds(self) -> float:
        return self._step("forward", model=self.model)["seconds"]

    def _perplexities(self, model: str | Path) -> dict[str, float]:
        sizes = {"length": self.test_length, "windows": self.args.test_windows}
        return self._step("perplexities", model=str(model), tokenizer=self.model, **sizes)

    def _step(self, name: str, **arguments: Any) -> dict[str, Any]:
        """A function of ``real_model_steps.py``, in a process of its own."""
        words = [sys.executable, STEPS, name, json.dumps({"folder": str(self.folder), **arguments})]
        return json.loads(run_measured(words, self.threads).output.splitlines()[-1])


def read_rows(file: Path | None) -> list[Row]:
    """Rows of earlier runs; none where there is no file."""
    if file is None or not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def peer_version(python: str) -> str:
    """The version of llm-compressor that an interpreter has.

    Raises:
        CommandFailed: when it has none.
    """
    words = "import importlib.metadata as found, llmcompressor; print(found.version('llmcompressor'))"
    return run_measured([python, "-c", words]).output.split()[-1]


def _run_seconds(recipe: str, done: Finished, output: Path) -> float:
    """Of the run or, of the peer, of its call: without start-up, load and save."""
    if recipe == PEER:
        return json.loads(done.output.splitlines()[-1])["seconds"]
    return json.loads((output / "si_report.json").read_text(encoding="utf-8"))["seconds"]
