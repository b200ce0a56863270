"""Measured results beside a checkpoint: ``si_evaluation.json``, which the model card shows."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optimum_si.config.small_files import read_small
from optimum_si.errors import CheckpointError

from .files import write_small_file


RESULTS_NAME = "si_evaluation.json"


@dataclass(frozen=True)
class Result:
    """One measured number.

    Args:
        dataset: name that may be published, such as "wikitext2" or "arc_easy".
        metric: "perplexity" or "accuracy", or another metric's name.
        value: measurement of the sparse model.
        dense: measurement of the base model on the same data; None where it was not measured.
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
        entries: list[dict[str, Any]] = json.loads(read_small(path))
        return [Result(**entry) for entry in entries]
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is damaged ({error}): delete it and measure again.") from error


def save_results(directory: str | Path, results: Iterable[Result]) -> None:
    """Add results to those in a directory; a dataset and metric that were there are replaced.

    Raises:
        CheckpointError: when the file that is there is damaged, or cannot be written.
    """
    kept = {(entry.dataset, entry.metric): entry for entry in [*load_results(directory), *results]}
    text = json.dumps([asdict(entry) for entry in kept.values()], indent=1) + "\n"
    write_small_file(Path(directory) / RESULTS_NAME, text)
