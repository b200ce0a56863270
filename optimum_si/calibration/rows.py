"""Rows of any origin -> a source: documents of text, or rows that are already tokenized."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from optimum_si.errors import CalibrationError

from .examples import INPUT_RANKS


TEXT_COLUMNS = ("text", "content", "document", "article", "body", "sentence", "code")


@dataclass(frozen=True)
class Source:
    """Documents (strings, None for an empty one) when ``is_text``, else rows for ``tokenized_examples``."""

    rows: Sequence[Any]
    is_text: bool


def as_source(rows: Sequence[Any], column: str | None, origin: str) -> Source:
    """Find out what rows hold, by the first one.

    Args:
        rows: strings, mappings or tokens; a ``datasets.Dataset`` is read on access only.
        column: the text column of mappings; None finds it.
        origin: what an error calls the rows.

    Raises:
        CalibrationError: a column is missing, or rows are of different kinds.
    """
    if len(rows) == 0:
        raise CalibrationError(f"{origin} is empty: give at least one text or example.")
    first = rows[0]
    if isinstance(first, str):
        _check_kind(rows, str, origin)
        return Source(rows, is_text=True)
    if not isinstance(first, Mapping) or is_tokenized(first, column):
        return Source(rows, is_text=False)
    column = text_column(first, column, origin)
    if hasattr(rows, "column_names"):
        return Source(rows[column], is_text=True)  # type: ignore[call-overload]
    _check_kind(rows, Mapping, origin)
    texts = [row.get(column) for row in rows]
    for index, text in enumerate(texts):
        if text is not None and not isinstance(text, str):
            raise CalibrationError(
                f"Row {index} of {origin} has a {type(text).__name__} in column {column!r}: give strings there."
            )
    return Source(texts, is_text=True)


def is_tokenized(row: Mapping[str, Any], column: str | None) -> bool:
    """Whether a row is to be used as it is: no column is asked for, and it has a model's inputs or tensors."""
    return column is None and any(
        name in INPUT_RANKS or isinstance(value, (Tensor, np.ndarray)) for name, value in row.items()
    )


def text_column(row: Mapping[str, Any], column: str | None, origin: str) -> str:
    """The column that was asked for, the first one with a usual name, or the only one of strings.

    Raises:
        CalibrationError: when there is none or the choice is not clear; lists the columns.
    """
    strings = [name for name, value in row.items() if isinstance(value, str)]
    if column is None:
        usual = [name for name in TEXT_COLUMNS if name in row and (name in strings or row[name] is None)]
        candidates = usual[:1] or strings
        if len(candidates) != 1:
            raise CalibrationError(
                f"It is not clear which column of {origin} is the text: set calibration.column to one of {list(row)}."
            )
        return candidates[0]
    if column not in row or not (column in strings or row[column] is None):
        raise CalibrationError(
            f"{origin} has no column of text named {column!r}: set calibration.column to one of "
            f"{strings or list(row)}."
        )
    return column


def _check_kind(rows: Sequence[Any], kind: type, origin: str) -> None:
    for index, row in enumerate(rows):
        if not isinstance(row, kind):
            raise CalibrationError(
                f"Row {index} of {origin} is a {type(row).__name__} and row 0 a {type(rows[0]).__name__}: give rows "
                "of one kind."
            )
