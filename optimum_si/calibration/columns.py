"""Columns: which of a row's holds the text, the images, the sounds or the conversation that a model reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from optimum_si.errors import CalibrationError

from .chats import CHAT_COLUMNS, is_chat
from .examples import INPUT_RANKS
from .media import IMAGES, SOUNDS, media_kind
from .reader import TEXT, Reader


TEXT_COLUMNS = ("text", "content", "document", "article", "body", "sentence", "code")
#: Usual names beside "text" of what goes with an image.
CAPTION_COLUMNS = ("caption", "prompt", "question", "captions")
MEDIA_COLUMNS = {IMAGES: ("image", "images", "img", "pixel_values"), SOUNDS: ("audio", "speech", "sound")}


@dataclass(frozen=True)
class Columns:
    """Names of columns; None where there is none of a kind.

    Args:
        text: of strings.
        chat: of conversations.
        images, sounds: of what a processor reads.
    """

    text: str | None = None
    chat: str | None = None
    images: str | None = None
    sounds: str | None = None

    @property
    def has_media(self) -> bool:
        """Whether a processor is needed."""
        return self.images is not None or self.sounds is not None

    @property
    def names(self) -> list[str]:
        """Those that there are."""
        return [name for name in (self.text, self.chat, self.images, self.sounds) if name is not None]


def is_tokenized(row: Mapping[str, Any], column: str | None) -> bool:
    """Whether a row is to be used as it is: no column is asked for, and it has a model's inputs or tensors."""
    return column is None and any(
        (name in INPUT_RANKS and media_kind(value) is None) or isinstance(value, (Tensor, np.ndarray))
        for name, value in row.items()
    )


def find_columns(row: Mapping[str, Any], column: str | None, origin: str, reader: Reader) -> Columns:
    """What of a row a model reads.

    Args:
        row: the first one.
        column: that was asked for, of whatever kind; None finds all.
        origin: what an error calls the rows.
        reader: of the model.

    Raises:
        CalibrationError: when there is nothing that the model reads, or the choice is not clear.
    """
    media = {kind: _media_column(row, kind, column, origin) for kind in (IMAGES, SOUNDS) if reader.reads(kind)}
    media = {kind: name for kind, name in media.items() if name is not None}
    chat = _chat_column(row, column)
    if media:
        text = _caption(row, column) if reader.reads(TEXT) else None
        return Columns(text, chat if reader.reads(TEXT) else None, **media)
    _check_read(row, column, origin, reader)
    if chat is not None and (column is not None or not _usual(row, TEXT_COLUMNS)):
        return Columns(chat=chat)
    return Columns(text=text_column(row, column, origin))


def text_column(row: Mapping[str, Any], column: str | None, origin: str) -> str:
    """The column that was asked for, the first one with a usual name, or the only one of strings.

    Raises:
        CalibrationError: when there is none or the choice is not clear; lists the columns.
    """
    strings = [name for name, value in row.items() if isinstance(value, str)]
    if column is None:
        candidates = _usual(row, TEXT_COLUMNS)[:1] or strings
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


def _media_column(row: Mapping[str, Any], kind: str, column: str | None, origin: str) -> str | None:
    names = [name for name, value in row.items() if media_kind(value) == kind]
    if column in names or len(names) < 2:
        return column if column in names else next(iter(names), None)
    usual = [name for name in MEDIA_COLUMNS[kind] if name in names]
    if not usual:
        raise CalibrationError(
            f"It is not clear which column of {origin} holds the {kind}: set calibration.column to one of {names}."
        )
    return usual[0]


def _chat_column(row: Mapping[str, Any], column: str | None) -> str | None:
    names = [name for name, value in row.items() if is_chat(value) and column in (None, name)]
    return next((name for name in CHAT_COLUMNS if name in names), names[0] if len(names) == 1 else None)


def _caption(row: Mapping[str, Any], column: str | None) -> str | None:
    """The column of text that goes with images or sounds; None where there is none, or no clear one."""
    strings = [name for name, value in row.items() if isinstance(value, str)]
    if column in strings:
        return column
    usual = [name for name in _usual(row, (*TEXT_COLUMNS, *CAPTION_COLUMNS)) if name in strings]
    return usual[0] if usual else strings[0] if len(strings) == 1 else None


def _usual(row: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in row and (row[name] is None or isinstance(row[name], str))]


def _check_read(row: Mapping[str, Any], column: str | None, origin: str, reader: Reader) -> None:
    """Raise :class:`CalibrationError` where all that a row has is of a kind that the model does not read."""
    kinds = {name: media_kind(value) for name, value in row.items()}
    unread = [f"{kind} (column {name!r})" for name, kind in kinds.items() if kind is not None]
    asked = column is not None and kinds.get(column) is not None
    has_text = any(isinstance(value, str) or is_chat(value) for value in row.values())
    if unread and (asked or not has_text):
        raise reader.refuse(", ".join(unread))
    if not reader.reads(TEXT):
        raise reader.refuse(f"text (columns {list(row)})" if has_text else f"columns {list(row)}")
