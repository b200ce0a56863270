"""Measured results beside a checkpoint: ``si_evaluation.json``, which the model card shows."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimum_si.errors import CheckpointError
from optimum_si.report import REPORT_NAME

from .base_model import public_name


if TYPE_CHECKING:
    from optimum_si.evaluation.results import Evaluation


RESULTS_NAME = "si_evaluation.json"
#: Share of zeros below which a model counts as dense.
DENSE_BELOW = 0.01


@dataclass(frozen=True)
class Result:
    """One measured number.

    Args:
        dataset: name that may be published, such as "wikitext2" or "arc_easy".
        metric: "perplexity" or "accuracy", or another metric's name.
        value: of the sparse model.
        dense: of the base model on the same data; None where it was not measured.
        details: how it was measured, such as "2048 tokens a window".
    """

    dataset: str
    metric: str
    value: float
    dense: float | None = None
    details: str = ""


def load_results(directory: str | Path) -> list[Result]:
    """The results in a directory; none where nothing was measured.

    Raises:
        CheckpointError: when the file is damaged.
    """
    path = Path(directory) / RESULTS_NAME
    if not path.is_file():
        return []
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return [Result(**entry) for entry in entries]
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged ({error}): delete it and measure again.") from error


def keep_results(
    evaluations: "Sequence[Evaluation]", sequence_length: int | None = None, max_windows: int | None = None
) -> list[Path]:
    """Keep what was measured in every directory that ``prune`` wrote, and write its card anew unless it was edited.

    Args:
        evaluations: of several models on the same data; the first one without zeros is what others are compared with.
        sequence_length: tokens of a window, where it was chosen.
        max_windows: how many windows of the text were used, where not all.

    Returns:
        The directories.
    """
    from .card import CARD_NAME, read_card, write_card

    dense = next((entry for entry in evaluations if entry.sparsity < DENSE_BELOW), None)
    kept = []
    for entry in evaluations:
        directory = Path(entry.model)
        is_ours = (directory / REPORT_NAME).is_file() and not any(directory.glob("*.onnx"))
        if entry is not dense and is_ours:
            save_results(directory, _results_of(entry, dense, sequence_length, max_windows))
            card = directory / CARD_NAME
            previous = read_card(card) if card.is_file() else None
            write_card(directory, directory.resolve().name, previous)
            kept.append(directory)
    return kept


def _results_of(
    entry: "Evaluation", dense: "Evaluation | None", sequence_length: int | None, max_windows: int | None
) -> Iterator[Result]:
    if entry.perplexity is not None:
        parts = [] if max_windows is None else [f"first {max_windows} windows"]
        parts += [] if sequence_length is None else [f"{sequence_length} tokens a window"]
        base = None if dense is None else dense.perplexity
        yield Result(public_name(entry.dataset or "text"), "perplexity", entry.perplexity, base, ", ".join(parts))
    for name, score in entry.tasks.items():
        base = None if dense is None else dense.tasks[name].value
        yield Result(name, score.metric, score.value, base, f"{score.examples} examples")


def save_results(directory: str | Path, results: Iterable[Result]) -> None:
    """Add results to those in a directory; a dataset and metric that were there are replaced."""
    kept = {(entry.dataset, entry.metric): entry for entry in [*load_results(directory), *results]}
    write_beside(
        Path(directory) / RESULTS_NAME, json.dumps([asdict(entry) for entry in kept.values()], indent=1) + "\n"
    )


def write_beside(path: Path, text: str) -> None:
    """Write a small file beside its place and move it in."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        fresh.write_text(text, encoding="utf-8", errors="surrogateescape")
        fresh.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be written ({error}): what was there before is intact."
        ) from error
    finally:
        fresh.unlink(missing_ok=True)
