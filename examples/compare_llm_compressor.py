"""Wanda and SparseGPT by llm-compressor and by optimum-si: the same samples, perplexity side by side.

    python -m venv llmc && llmc/bin/pip install llmcompressor
    python examples/compare_llm_compressor.py MODEL --calibration c4 --evaluation wikitext2 \\
        --llm-compressor-python llmc/bin/python

llm-compressor pins another version of transformers, so it runs in an environment of its own, as a process that reads
the windows from a file (llm_compressor_prune.py). With SI_QUICK=1 few short windows and one epoch are used.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from optimum_si import SIConfig, SIPruner, perplexity
from optimum_si.calibration import prepare_examples
from optimum_si.checkpoint.load import load_model, maximum_length
from optimum_si.config.groups import CalibrationConfig
from optimum_si.evaluation.perplexity import evaluation_texts, max_evaluation_windows
from optimum_si.report import format_table


QUICK = os.environ.get("SI_QUICK") == "1"
WORKER = Path(__file__).with_name("llm_compressor_prune.py")
METHODS = ("wanda", "sparsegpt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", help="directory or Hub id")
    add("--calibration", default="c4", help="dataset or files (default: %(default)s)")
    add("--evaluation", default="wikitext2", help="dataset or files (default: %(default)s)")
    add("--methods", nargs="+", default=METHODS, choices=METHODS)
    add("--targets", nargs="+", default=("50%", "2:4"), help="such as 50%% or 2:4 (default: %(default)s)")
    add("--samples", type=int, default=4 if QUICK else 128, help="windows (default: %(default)s)")
    add("--length", type=int, default=16 if QUICK else 2048, help="tokens of a window (default: %(default)s)")
    add("--epochs", type=int, default=1 if QUICK else 5, help="of induction (default: %(default)s)")
    add("--max-windows", type=int, default=2 if QUICK else None, help="of the evaluation (default: all)")
    add("--llm-compressor-python", default=sys.executable, metavar="PYTHON", help="where it is installed")
    add("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    check_importable(args.llm_compressor_python)
    rows = compare(args)
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    header = ["method", "target", "dense", "llm-compressor", "optimum-si", "optimum-si +SI"]
    columns = ("dense", "llm_compressor", "plain", "si")
    cells = [[row["method"], row["target"], *(f"{row[name]:.3f}" for name in columns)] for row in rows]
    print(format_table(header, cells))


def check_importable(python: str) -> None:
    """Stop with what to do where the interpreter has no llm-compressor."""
    try:
        found = subprocess.run([python, "-c", "import llmcompressor"], capture_output=True, text=True)
        reason = (found.stderr.strip().splitlines() or ["it ends without a word"])[-1]
    except OSError as error:
        found, reason = None, str(error)
    if found is None or found.returncode:
        sys.exit(
            f"llm-compressor cannot be imported by {python} ({reason}). It pins another transformers, so give it an "
            "environment of its own: python -m venv llmc && llmc/bin/pip install llmcompressor, then add "
            "--llm-compressor-python llmc/bin/python."
        )


def compare(args: argparse.Namespace) -> list[dict]:
    """A row for each method and target: perplexities by both libraries, all on the same windows."""
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    dense = load_model(args.model, dtype=torch.float32)
    windows = calibration_windows(args.calibration, tokenizer, args.samples, args.length, maximum_length(dense))
    texts = evaluation_texts(args.evaluation)
    max_windows = max_evaluation_windows(args.evaluation) if args.max_windows is None else args.max_windows

    def measure(model) -> float:
        return perplexity(model, tokenizer, texts, min(args.length, windows.shape[1]), max_windows=max_windows)

    before = measure(dense)
    rows = []
    with TemporaryDirectory() as folder:
        for method in args.methods:
            for target in args.targets:
                output = Path(folder, f"{method}-{target}")
                prune_elsewhere(args.llm_compressor_python, args.model, windows, method, target, output)
                row = {"method": method, "target": target, "dense": before}
                row["llm_compressor"] = measure(load_model(output, dtype=torch.float32))
                for name, induction in (("plain", None), ("si", {"epochs": args.epochs})):
                    pruner = SIPruner.from_pretrained(args.model, dtype=torch.float32)
                    goal = {"pattern": target} if ":" in target else {"sparsity": float(target.rstrip("%")) / 100}
                    pruner.prune(SIConfig(method, **goal, induction=induction), windows)
                    row[name] = measure(pruner.model)
                rows.append(row)
    return rows


def calibration_windows(dataset: str, tokenizer, samples: int, length: int, max_length: int | None) -> Tensor:
    """int64 [samples, length], drawn as ``SIPruner.prune`` draws them."""
    config = CalibrationConfig(num_samples=samples, sequence_length=length)
    return torch.cat([example["input_ids"] for example in prepare_examples(dataset, config, tokenizer, max_length)])


def prune_elsewhere(python: str, model: str, windows: Tensor, method: str, target: str, output: Path) -> None:
    """A pruned checkpoint by llm-compressor, in a process of its interpreter."""
    file = output.with_suffix(".safetensors")
    save_file({"windows": windows.contiguous()}, file)
    run([python, WORKER, model, file, method, target, output])


def run(command: Sequence[str | Path]) -> None:
    finished = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if finished.returncode:
        sys.exit(f"llm-compressor failed:\n{finished.stderr[-2000:]}")


if __name__ == "__main__":
    main()
