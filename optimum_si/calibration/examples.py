"""Tokenized rows -> examples, whichever way a user holds them."""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optimum_si.errors import CalibrationError


# Dimensions of one unbatched input; the first name that a row has tells whether the row is batched.
INPUT_RANKS = {"input_ids": 1, "inputs_embeds": 2, "pixel_values": 3, "input_features": 2, "input_values": 1}


def tokenized_examples(rows: Sequence[Any], max_length: int | None = None) -> list[dict[str, Tensor]]:
    """Rows as dicts of tensors, one example each.

    Args:
        rows: mappings, or token ids alone, as tensors, arrays or lists; batched ones are split. Entries that are one
            number, a string or None for each example (an index, a class label, the text) are left out.
        max_length: longest ``input_ids`` accepted; None for any.

    Returns:
        Dicts of tensors with a leading dimension of 1; ``input_ids`` and ``attention_mask`` (ones when absent) are
        int64 [1, T].

    Raises:
        CalibrationError: names the row that has nothing usable, is too long or has entries that disagree.
    """
    examples = []
    for index, row in enumerate(rows):
        named = row if isinstance(row, Mapping) else {"input_ids": row}
        examples += [_checked(example, index, max_length) for example in _split(named, index)]
    return examples


def rank(value: Any) -> int:
    """Dimensions of a tensor, an array or nested lists of numbers; 0 for anything else."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value.ndim
    if isinstance(value, (list, tuple)) and value:
        inner = rank(value[0])
        return inner + 1 if inner or isinstance(value[0], (Number, Tensor, np.ndarray)) else 0
    return 0


def _split(row: Mapping[str, Any], index: int) -> Iterator[dict[str, Tensor]]:
    """The examples of a row: its only one, or one for each entry of its batch."""
    lead = next((name for name in [*INPUT_RANKS, *row] if name in row and rank(row[name])), None)
    if lead is None or len(row[lead]) == 0 or ("input_ids" in row and rank(row["input_ids"]) not in (1, 2)):
        given = {name: type(value).__name__ for name, value in row.items()}
        raise CalibrationError(
            f"Example {index} has no usable input: got {given}; expected non-empty 'input_ids' of shape [T] or [n, T] "
            "or other tensors, such as 'pixel_values'."
        )
    if rank(row[lead]) == INPUT_RANKS.get(lead):
        yield {name: _tensor(value, name, index)[None] for name, value in row.items() if rank(value) >= 1}
        return
    batched = {name: value for name, value in row.items() if rank(value) >= 2}
    size = len(row[lead])
    for entry in range(size):
        example = {}
        for name, value in batched.items():
            if len(value) == size:
                example[name] = _tensor(value[entry], name, index)[None]
            elif size == 1:  # such as the patches of all images of one prompt
                example[name] = _tensor(value, name, index)
            else:
                raise CalibrationError(
                    f"Example {index}: {lead!r} has a batch of {size} and {name!r} one of {len(value)}: make them "
                    "agree."
                )
        yield example


def _tensor(value: Any, name: str, index: int) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CalibrationError(f"Example {index}: {name!r} makes no tensor ({error}).") from error


def _checked(example: dict[str, Tensor], index: int, max_length: int | None) -> dict[str, Tensor]:
    """The example with ``input_ids`` and ``attention_mask`` in their final form."""
    ids = example.get("input_ids")
    if ids is None:
        return example
    if ids.is_floating_point() or ids.dtype == torch.bool or ids.numel() == 0:
        raise CalibrationError(
            f"Example {index}: 'input_ids' has dtype {ids.dtype} and shape {list(ids.shape)}: give at least one token "
            "id, as integers."
        )
    if max_length is not None and ids.shape[1] > max_length:
        raise CalibrationError(
            f"Example {index} has {ids.shape[1]} tokens and the model accepts at most {max_length}: cut the examples "
            f"to {max_length} tokens."
        )
    mask = example.get("attention_mask", torch.ones_like(ids))
    if mask.shape != ids.shape:
        raise CalibrationError(
            f"Example {index}: 'attention_mask' has shape {list(mask.shape)} and 'input_ids' {list(ids.shape)}: make "
            "them agree."
        )
    return {**example, "input_ids": ids.long(), "attention_mask": mask.long()}
