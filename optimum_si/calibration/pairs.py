"""Texts with their targets -> examples, for an encoder-decoder."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from optimum_si.errors import CalibrationError

from .chats import render
from .columns import Columns
from .examples import INPUT_RANKS, rank
from .windows import Windower, well_formed


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Keeps the ids of a target in an example until the model makes decoder inputs of them.
LABELS = "labels"


def paired_rows(
    rows: Any, columns: Columns, target: str, tokenizer: "PreTrainedTokenizerBase", windower: Windower
) -> Iterator[dict[str, Any]]:
    """Token ids of each text that is not empty, and as labels those of its target, both cut to a window.

    Raises:
        CalibrationError: for a value that is no text.
    """
    for index, row in enumerate(rows):
        text = row[columns.text] if columns.chat is None else render(row[columns.chat], tokenizer)
        ids = windower.encode(text)[: windower.text_length]
        if ids:
            ids = [*windower.prefix, *ids, *windower.suffix]
            labels = target_labels(row, target, tokenizer, windower.length, index)
            yield with_labels({"input_ids": ids}, labels)


def target_labels(
    row: Mapping[str, Any], target: str, tokenizer: "PreTrainedTokenizerBase | None", length: int, index: int
) -> list[int] | None:
    """The target of a row as token ids; None where it is empty.

    Raises:
        CalibrationError: without a tokenizer, or for a target that is no text.
    """
    text = row.get(target)
    if not text:
        return None
    if not isinstance(text, str) or tokenizer is None:
        wrong = "there is no tokenizer" if tokenizer is None else f"row {index} holds a {type(text).__name__}"
        raise CalibrationError(
            f"calibration.target_column={target!r} is a column of texts, and {wrong}: give texts and the model's "
            "tokenizer, or token ids as 'labels'."
        )
    return tokenizer(text_target=well_formed(text), truncation=True, max_length=length)["input_ids"]


def with_labels(row: Mapping[str, Any], labels: list[int] | None) -> dict[str, Any]:
    """A row with labels, batched as its inputs are."""
    if labels is None:
        return dict(row)
    lead = next((name for name in INPUT_RANKS if name in row), None)
    is_batched = lead is not None and rank(row[lead]) > INPUT_RANKS[lead]
    return {**row, LABELS: [labels] if is_batched else labels}
