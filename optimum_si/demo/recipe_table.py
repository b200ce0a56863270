"""Perplexity of recipes on several texts beside the dense model's, row by row."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optimum_si.errors import CalibrationError
from optimum_si.evaluation.perplexity import perplexity

from .live_output import LiveTable, clock, minutes


#: Windows at a time: logits of more would need more memory than the model.
BATCH = 2


def windows_of(tokenizer: Any, texts: list[str], count: int, length: int) -> Tensor:
    """The first windows of texts, an empty line between them: int64 [at most count, length].

    Raises:
        CalibrationError: when the texts do not fill one.
    """
    ids = torch.tensor(tokenizer("\n\n".join(texts), verbose=False)["input_ids"])
    count = min(count, len(ids) // length)
    if count == 0:
        raise CalibrationError(f"The text has {len(ids)} tokens and one window needs {length}: give more text.")
    return ids[: count * length].view(count, length)


@dataclass(frozen=True)
class Row:
    """One recipe.

    Args:
        name: of the recipe.
        perplexities: on each text.
        seconds: that pruning took; None for the dense model.
    """

    name: str
    perplexities: tuple[float, ...]
    seconds: float | None


class RecipeTable:
    """The dense model, then a baseline, then recipes that are to be better; each row is printed when it is measured.

    Args:
        windows: of each text by its name, int64 [N, T].

    Attributes:
        rows: that were measured.
        texts: names of the texts, in the order of a row's perplexities.
    """

    def __init__(self, windows: dict[str, Tensor]) -> None:
        self.rows: list[Row] = []
        self.texts = tuple(windows)
        self._windows = windows
        measured = [name for text in windows for name in (text, "x dense", "closed")]
        self._printed = LiveTable(["recipe", *measured, "time"], [10, *(8 for _ in measured), 11])

    def add(self, name: str, model: Any, seconds: float | None = None) -> None:
        """Measure a model and print its row."""
        with clock(f"perplexity of {name}"):
            measured = tuple(
                perplexity(model, texts=windows, batch_size=BATCH, progress=False)
                for windows in self._windows.values()
            )
        row = Row(name, measured, seconds)
        self.rows.append(row)
        cells = [name]
        for text, value in enumerate(measured):
            cells += [number(value), f"{self.to_dense(row, text):.2f}", percent(self.closed(row, text))]
        self._printed.add([*cells, "" if seconds is None else minutes(seconds)])

    def to_dense(self, row: Row, text: int) -> float:
        """Perplexity of a row over that of the dense model, on a text by its index."""
        return row.perplexities[text] / self.rows[0].perplexities[text]

    def closed(self, row: Row, text: int) -> float:
        """The share of what the baseline lost that a recipe wins back; NaN where there is nothing to say."""
        if len(self.rows) < 2 or row is self.rows[1]:
            return math.nan
        dense, baseline = (other.perplexities[text] for other in self.rows[:2])
        share = (baseline - row.perplexities[text]) / (baseline - dense) if baseline > dense else math.nan
        return share if math.isfinite(share) else math.nan


def score(model: Any, windows: Tensor) -> float:
    """Perplexity of a model, also an exported one, on windows."""
    return perplexity(model, texts=windows, batch_size=BATCH, progress=False)


def percent(share: float) -> str:
    """A share as text; a dash for NaN."""
    return "-" if math.isnan(share) else f"{share:.0%}"


def number(value: float) -> str:
    """A perplexity as text."""
    return f"{value:.2f}" if value < 1e5 else f"{value:.3g}"
