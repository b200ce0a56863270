"""Measured results beside a checkpoint: ``si_evaluation.json``, which the model card shows."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError


RESULTS_NAME = "si_evaluation.json"


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


def save_results(directory: str | Path, results: list[Result]) -> None:
    """Add results to those in a directory; a dataset and metric that were there are replaced."""
    kept = {(entry.dataset, entry.metric): entry for entry in [*load_results(directory), *results]}
    write_beside(
        Path(directory) / RESULTS_NAME, json.dumps([asdict(entry) for entry in kept.values()], indent=1) + "\n"
    )


def write_beside(path: Path, text: str) -> None:
    """Write a small file beside its place and move it in."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be written ({error}): what was there before is intact."
        ) from error
    finally:
        fresh.unlink(missing_ok=True)
