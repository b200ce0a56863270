"""The end of the default demo: the pruned model without its zeros on ONNX Runtime, beside the dense model there."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from optimum_si.onnx import ORTSIModelForCausalLM, export
from optimum_si.onnx.benchmark import benchmark
from optimum_si.onnx.kernels import KernelsUnavailable, library_path
from optimum_si.version import __version__

from .cache import cache_root
from .comparison import say
from .live_output import LiveTable, clock
from .recipe_table import number, score


#: How the kept weights are stored.
VALUES = "fp16"
DENSE, SPARSE = "onnx-dense", "onnx-sparse"
#: Tokens of the prompt, and after it, with which speed is measured.
PROMPT, NEW_TOKENS = 64, 32


@dataclass(frozen=True)
class Exported:
    """The sparse export, and what it brings.

    Args:
        sparse: the export, open.
        speed: tokens it generates per second over those of the dense model's export.
        size: its bytes over those of the dense model's export.
        kernels: whether the zeros are left out of the computation too.
    """

    sparse: ORTSIModelForCausalLM
    speed: float
    size: float
    kernels: bool


def compare_exports(
    dense: Path, pruned: PreTrainedModel, tokenizer: Any, output: Path, windows: Tensor, repeats: int
) -> Exported | None:
    """Export both models, measure them in turns, and print a row for each; None where a package is missing.

    Args:
        dense: checkpoint of the dense model.
        pruned: on the CPU.
        tokenizer: saved beside the exports.
        output: gets them, in the folders DENSE and SPARSE; the export of a model in the user's cache, which is the
            same in every run of a version, is kept beside that one instead.
        windows: on which perplexity is measured, int64 [N, T].
        repeats: turns in which speed is measured.
    """
    if find_spec("onnxscript") is None or find_spec("onnxruntime") is None:
        say('\nOn ONNX Runtime: pip install "optimum-si[onnx]" adds that comparison.')
        return None
    kernels = _have_kernels()
    say(f"\nOn ONNX Runtime, the dense model in fp32 and `fast` without its zeros, kept weights in {VALUES}:\n")
    folder = _dense_export(dense, output)
    with clock("export of the sparse model"):
        export(pruned, output / SPARSE, weights="sparse", values=VALUES, tokenizer=tokenizer, overwrite=True)
    with clock("tokens per second"):
        speeds = benchmark([folder, output / SPARSE], PROMPT, NEW_TOKENS, repeats=repeats)
    table = LiveTable(["export", "tokens a second", "MB", "perplexity (articles)"], [14, 15, 7, 21])
    for name, place, speed in zip(("dense", f"fast, {VALUES}"), (folder, output / SPARSE), speeds, strict=True):
        opened = ORTSIModelForCausalLM.from_pretrained(place)
        with clock(f"perplexity of {name}"):
            measured = score(opened, windows)
        table.add([name, f"{speed.decode or 0:.1f}", f"{speed.megabytes:.0f}", number(measured)])
    first, second = speeds
    speed_ratio = (second.decode or 0) / first.decode if first.decode else 0.0
    return Exported(opened, speed_ratio, second.megabytes / first.megabytes, kernels)


def _dense_export(dense: Path, output: Path) -> Path:
    cached = dense.with_name(f"{dense.name}-onnx-{__version__}")
    folder = cached if dense.is_relative_to(cache_root()) else output / DENSE
    if folder != cached or not (folder / "config.json").is_file():
        with clock("export of the dense model"):
            export(dense, folder, overwrite=True)
    return folder


def _have_kernels() -> bool:
    try:
        with clock("compiling the sparse kernels"):
            library_path()
    except KernelsUnavailable as error:
        say(f"\n{error} Until then the export is small, and as fast as a dense one.")
        return False
    return True
