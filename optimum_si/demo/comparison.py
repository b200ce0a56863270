"""The comparison that every demo runs: each recipe with and without induction, from the same dense model."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from optimum_si.checkpoint.outputs import check_output
from optimum_si.config.groups import CalibrationConfig, InductionConfig
from optimum_si.config.si_config import SIConfig
from optimum_si.errors import CheckpointError
from optimum_si.models.structure import find_structure
from optimum_si.pruner import SIPruner
from optimum_si.report import Report, format_table


METHODS = ("magnitude", "wanda", "sparsegpt")
KEPT_PATTERN = "2:4"


@dataclass(frozen=True)
class Workload:
    """How much a demo does.

    Args:
        windows: number of calibration windows.
        length: tokens of a calibration window.
        epochs: epochs of induction.
        recipes: pairs of method and target, "50%" or a pattern.
        sentences: number of held-out sentences, where embeddings are compared.
        test_windows: number of held-out windows, where perplexity is measured.
        test_length: tokens of a held-out window.
    """

    windows: int
    length: int
    epochs: int
    recipes: tuple[tuple[str, str], ...]
    sentences: int
    test_windows: int
    test_length: int

    @classmethod
    def of(cls, quick: bool) -> "Workload":
        """The full comparison, or just enough to see that everything works."""
        if quick:
            return cls(16, 64, 1, (("wanda", KEPT_PATTERN),), 40, 8, 64)
        recipes = tuple((method, target) for target in ("50%", KEPT_PATTERN) for method in METHODS)
        return cls(64, 128, 3, recipes, 200, 64, 256)

    def config(self, method: str, target: str, induction: bool) -> SIConfig:
        """The recipe of one run."""
        sparsity = float(target.rstrip("%")) / 100 if target.endswith("%") else None
        return SIConfig(
            method,
            sparsity=sparsity,
            pattern=None if sparsity is not None else target,
            induction=InductionConfig(epochs=self.epochs) if induction else None,
            calibration=CalibrationConfig(num_samples=self.windows, sequence_length=self.length),
        )


@dataclass(frozen=True)
class Metric:
    """What is compared.

    Args:
        name: name of the number, such as "perplexity".
        score: function of a model that gives its number.
        dense: number of the dense model.
    """

    name: str
    score: Callable[[Any], float]
    dense: float


@dataclass(frozen=True)
class Row:
    """One recipe without and with induction."""

    method: str
    target: str
    plain: float
    induced: float
    dense: float
    plain_seconds: float
    induced_seconds: float

    @property
    def gap_closed(self) -> float:
        """Fraction of what plain pruning lost that induction won back; NaN where nothing was lost."""
        gap = self.dense - self.plain
        closed = (self.induced - self.plain) / gap if gap else math.nan
        return closed if math.isfinite(closed) else math.nan

    @property
    def distance(self) -> float:
        """From the dense model, with induction; lower is better."""
        return abs(self.induced - self.dense)

    def cells(self) -> list[str]:
        """The row as text, in the order of :func:`table`."""
        closed = "-" if math.isnan(self.gap_closed) else f"{self.gap_closed:.1%}"
        return [
            self.method,
            self.target,
            _number(self.plain),
            _number(self.induced),
            closed,
            f"{self.plain_seconds:.1f}",
            f"{self.induced_seconds:.1f}",
        ]


def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    calibration: Any,
    metric: Metric,
    workload: Workload,
    output: Path,
) -> list[Row]:
    """Prune copies of a model by every recipe, print each row and then the table, and keep the best result at 2:4.

    Args:
        model: the dense model; stays as it is.
        tokenizer: tokenizer of the model.
        calibration: texts.
        metric: number that is compared.
        workload: recipes, and how much data they see.
        output: gets the induced model of the best row at 2:4; what is there is replaced.
    """
    rows: list[Row] = []
    best = math.inf
    for index, (method, target) in enumerate(workload.recipes, start=1):
        say(f"\n[{index}/{len(workload.recipes)}] {method} {target}, without and with induction")
        scores, seconds = [], []
        for induction in (False, True):
            pruner = SIPruner(copy.deepcopy(model), tokenizer)
            pruner.prune(workload.config(method, target, induction), calibration)
            assert pruner.report is not None
            scores.append(metric.score(pruner.model))
            seconds.append(pruner.report.seconds)
        row = Row(method, target, scores[0], scores[1], metric.dense, seconds[0], seconds[1])
        rows.append(row)
        cells = row.cells()
        say(f"{metric.name}: plain {cells[2]}, SI {cells[3]}, share of the gap closed {cells[4]}")
        # Saved at once: only one copy beside the dense model is ever in memory. A NaN never counts as better.
        if target == KEPT_PATTERN and row.distance < best:
            best = row.distance
            pruner.save_pretrained(output, overwrite=True)
    say(f"\n{table(rows, metric)}")
    return rows


def table(rows: list[Row], metric: Metric) -> str:
    """All rows under one header."""
    name = metric.name
    header = ["method", "target", f"plain {name}", f"SI {name}", "gap closed", "plain s", "SI s"]
    legend = (
        f"{name} of the dense model: {_number(metric.dense)}. gap closed: the share of what plain pruning lost that "
        "SI won back."
    )
    return f"{format_table(header, [row.cells() for row in rows])}\n{legend}"


def pattern_holds(model: PreTrainedModel, layers: list[str], kept: int = 2, of: int = 4) -> bool:
    """Whether each of these layers has at most ``kept`` non-zeros in every ``of`` consecutive input weights."""
    views = {view.name: view for block in find_structure(model).blocks for view in block.views.values()}
    return bool(layers) and all(int((views[name].read().reshape(-1, of) != 0).sum(1).max()) <= kept for name in layers)


def check_saved(model: PreTrainedModel, directory: Path, name: str = "") -> None:
    """Print what a reloaded result holds.

    Args:
        model: the result, loaded.
        directory: where from.
        name: of the result; "" is the best of :func:`compare`.

    Raises:
        CheckpointError: when its weights do not have the pattern.
    """
    report = Report.load(directory)
    layers = [layer.name for layer in report.layers]
    if not pattern_holds(model, layers):
        raise CheckpointError(f"{str(directory)!r} was reloaded and its weights are not {KEPT_PATTERN}: report this.")
    name = name or f"The best result at {KEPT_PATTERN}, {report.method} with SI,"
    say(
        f"\n{name} is in {directory}. Loaded by transformers "
        f"alone: {report.sparsity:.1%} zeros in {len(layers)} layers, every group of 4 weights has at most 2 that are "
        "not zero."
    )


def check_destination(directory: Path, default: Path, overwrite: bool) -> None:
    """Raise :class:`CheckpointError` unless a result may go there: only the demo's own folder is replaced unasked."""
    check_output(directory, overwrite=overwrite or directory == default)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the progress bars and warnings with which transformers loads weights."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def say(text: str) -> None:
    """Print now, also into a pipe."""
    print(text, flush=True)


def best_device() -> torch.device:
    """The first CUDA device, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 1e5 else f"{value:.3g}"
