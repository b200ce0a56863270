"""The end of a demo: the pruned model in PyTorch and on ONNX Runtime, how fast, how large and how close."""

import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from transformers import PreTrainedModel

from optimum_si.onnx import export
from optimum_si.onnx.directories import weight_bytes
from optimum_si.report import format_table

from .comparison import Metric, say


TURNS = 3


def compare_runtimes(
    model: PreTrainedModel,
    tokenizer: Any,
    output: Path,
    dtypes: Sequence[str],
    load: Callable[[Path], Any],
    metric: Metric,
    work: Callable[[Any], int],
    unit: str,
) -> None:
    """Export a pruned model, measure every form in turns, and print a table.

    Args:
        model: pruned, on the CPU.
        tokenizer: tokenizer, which is saved beside the exports.
        output: holds its checkpoint; exports go into ``onnx-DTYPE`` in it.
        dtypes: dtypes of the weights that are stored, one for each export, such as ("fp32", "int8").
        load: opens an export.
        metric: number that is compared beside speed.
        work: runs a model once and says how many units it did.
        unit: unit of work, such as "sentences".
    """
    if find_spec("onnxscript") is None or find_spec("onnxruntime") is None:
        say('On ONNX Runtime: pip install "optimum-si[onnx]" adds that comparison.')
        return
    say("Exporting the result for ONNX Runtime ...")
    models: dict[str, tuple[Any, float]] = {"PyTorch": (model, weight_bytes(output) / 1e6)}
    for dtype in dtypes:
        directory = output / f"onnx-{dtype}"
        shutil.rmtree(directory, ignore_errors=True)
        export(model, directory, values=dtype, tokenizer=tokenizer)
        models[f"ONNX Runtime, {dtype}"] = load(directory), weight_bytes(directory) / 1e6
    speeds: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(TURNS + 1):
        for name, (entry, _) in models.items():
            started = time.perf_counter()
            done = work(entry)
            if turn:  # the first turn warms up
                speeds[name].append(done / (time.perf_counter() - started))
    first = median(speeds["PyTorch"])
    rows = [
        [
            name,
            f"{median(speeds[name]):.0f}",
            f"{median(speeds[name]) / first:.2f} x",
            f"{size:.1f}",
            f"{metric.score(entry):.4f}",
        ]
        for name, (entry, size) in models.items()
    ]
    say(f"\n{format_table(['runtime', f'{unit} a second', 'to PyTorch', 'MB', metric.name], rows)}")
    say(
        "All of them store the zeros. An export that leaves them out, for kernels that compute without them:\n"
        f"  optimum-cli si export {shlex.quote(str(output))} {shlex.quote(f'{output}-sparse')} --weights sparse\n"
    )
