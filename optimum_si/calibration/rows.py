"""Rows of any origin -> a source: documents, conversations, images and sounds, or rows that are already tokenized."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optimum_si.errors import CalibrationError

from .chats import is_chat
from .columns import Columns, find_columns, is_tokenized
from .lazy_rows import LazyRows, row_of
from .media import IMAGES, media_kind
from .reader import TEXT, Reader


#: Names that rows of one value get.
_OF_VALUES = {IMAGES: "image"}


@dataclass(frozen=True)
class Source:
    """What data holds.

    Args:
        rows: documents (strings, None for an empty one), conversations, mappings for a processor, or rows for
            ``tokenized_examples``: as ``kind`` says.
        kind: "text", "chats", "media", "pairs" (mappings with a text and its target) or "tokens".
        columns: of mappings.
    """

    rows: Sequence[Any]
    kind: str
    columns: Columns = field(default=Columns())

    @property
    def is_text(self) -> bool:
        """Whether the rows are documents from which windows are drawn."""
        return self.kind in ("text", "chats")


def as_source(
    rows: Sequence[Any],
    column: str | None,
    origin: str,
    reader: Reader | None = None,
    target: str | None = None,
) -> Source:
    """Find out what rows hold, by the first one.

    Args:
        rows: strings, mappings, images, conversations or tokens; a ``datasets.Dataset`` is read on access only.
        column: of mappings, that is asked for; None finds it.
        origin: what an error calls the rows.
        reader: of the model.
        target: column of mappings with what a decoder writes.

    Raises:
        CalibrationError: a column is missing, rows are of different kinds, or of one that the model does not read.
    """
    reader = reader or Reader()
    if len(rows) == 0:
        raise CalibrationError(f"{origin} is empty: give at least one text or example.")
    first = row_of(rows, 0)
    if not isinstance(first, Mapping):
        if target is not None:
            raise CalibrationError(f"{origin} has no columns, so none named {target!r}: give rows that are mappings.")
        return _of_values(rows, first, origin, reader)
    if target is not None and target not in first:
        raise CalibrationError(
            f"{origin} has no column {target!r}: set calibration.target_column to one of {list(first)}."
        )
    if media_kind(first) is not None:  # one value, such as {"array", "sampling_rate"}, and not a row of columns
        return _of_values(rows, first, origin, reader)
    if is_tokenized(first, column):
        return Source(rows, "tokens")
    columns = find_columns({name: first[name] for name in first if name != target}, column, origin, reader)
    if columns.has_media:
        return Source(LazyRows(rows), "media", columns)
    if target is not None:
        return Source(LazyRows(rows), "pairs", columns)
    (name,) = columns.names
    kind = "text" if columns.chat is None else "chats"
    if hasattr(rows, "column_names"):
        return Source(rows[name], kind)  # type: ignore[call-overload]
    if kind == "chats":
        return Source(LazyRows(rows, lambda row: row.get(name)), kind)
    _check_kind(rows, Mapping, origin)
    texts = [row.get(name) for row in rows]
    for index, text in enumerate(texts):
        if text is not None and not isinstance(text, str):
            raise CalibrationError(
                f"Row {index} of {origin} has a {type(text).__name__} in column {name!r}: give strings there."
            )
    return Source(texts, kind)


def _of_values(rows: Sequence[Any], first: Any, origin: str, reader: Reader) -> Source:
    """Rows that have no columns."""
    if isinstance(first, str):
        _check_kind(rows, str, origin)
        if not reader.reads(TEXT):
            raise reader.refuse("text")
        return Source(rows, "text")
    if is_chat(first):
        if not reader.reads(TEXT):
            raise reader.refuse("conversations")
        return Source(rows, "chats")
    kind = media_kind(first)
    if kind is None:
        return Source(rows, "tokens")
    name = _OF_VALUES.get(kind, "audio")
    columns = find_columns({name: first}, None, origin, reader)
    return Source(LazyRows(rows, lambda value: {name: value}), "media", columns)


def _check_kind(rows: Sequence[Any], kind: type, origin: str) -> None:
    for index, row in enumerate(rows):
        if not isinstance(row, kind):
            raise CalibrationError(
                f"Row {index} of {origin} is a {type(row).__name__} and row 0 a {type(rows[0]).__name__}: give rows "
                "of one kind."
            )
