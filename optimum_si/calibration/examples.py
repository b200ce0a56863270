"""Tokenized rows -> examples, whichever way a user holds them."""

from collections.abc import Iterable, Iterator, Mapping, Set
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optimum_si.errors import CalibrationError


# Dimensions of one unbatched input; the first name that a row has tells whether the row is batched.
INPUT_RANKS = {"input_ids": 1, "inputs_embeds": 2, "pixel_values": 3, "input_features": 2, "input_values": 1}

# Patches of all images of a prompt in one list, and what says how many are of which image (Qwen2-VL).
PATCHES = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}


def tokenized_examples(
    rows: Iterable[Any],
    max_length: int | None = None,
    count: int | None = None,
    main_input: str = "input_ids",
    numbers: Set[str] = frozenset(),
) -> list[dict[str, Tensor]]:
    """Rows as dicts of tensors, one example each.

    Args:
        rows: mappings, or token ids alone, as tensors, arrays or lists; batched ones are split. Entries that are one
            number (an index, a class label), a string or None for each example are left out.
        max_length: longest ``input_ids`` accepted; None for any.
        count: examples wanted, the first ones; None for all.
        main_input: name of values without one that are no token ids.
        numbers: names under which one number for each example is an input, such as XMOD's ``lang_ids``, and kept.

    Returns:
        Dicts of tensors with a leading dimension of 1, which is a number's only one, but for patches that no row of
        their own holds;
        ``input_ids`` and ``attention_mask`` (ones when absent) are int64 [1, T].

    Raises:
        CalibrationError: names the row that has nothing usable, is too long or has entries that disagree.
    """
    examples: list[dict[str, Tensor]] = []
    for index, row in enumerate(rows):
        named = row if isinstance(row, Mapping) else {name_of_input(row, main_input): row}
        for example in _split(named, index, numbers):
            examples.append(_checked(example, index, max_length))
            if len(examples) == count:
                return examples
    return examples


def name_of_input(values: Any, main_input: str) -> str:
    """What values without a name are: token ids, or a model's main input."""
    is_float = isinstance(values, (Tensor, np.ndarray)) and torch.as_tensor(values[:0]).is_floating_point()
    return main_input if is_float or rank(values) > 2 else "input_ids"


def rank(value: Any) -> int:
    """Dimensions of a tensor, an array or nested lists of numbers; 0 for anything else."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value.ndim
    if isinstance(value, (list, tuple)) and value:
        inner = rank(value[0])
        return inner + 1 if inner or isinstance(value[0], (Number, Tensor, np.ndarray)) else 0
    return 0


def _split(row: Mapping[str, Any], index: int, numbers: Set[str]) -> Iterator[dict[str, Tensor]]:
    """The examples of a row: its only one, or one for each entry of its batch."""
    lead = next((name for name in [*INPUT_RANKS, *row] if name in row and rank(row[name])), None)
    if lead is None or len(row[lead]) == 0 or ("input_ids" in row and rank(row["input_ids"]) not in (1, 2)):
        given = {name: type(value).__name__ for name, value in row.items()}
        raise CalibrationError(
            f"Example {index} has no usable input: got {given}; expected non-empty 'input_ids' of shape [T] or [n, T] "
            "or other tensors, such as 'pixel_values'."
        )
    row = {**row, **(whole := _patches(row, index))}
    if rank(row[lead]) == INPUT_RANKS.get(lead) and lead not in whole:
        kept = {name: value for name, value in row.items() if rank(value) or (name in numbers and _is_number(value))}
        tensors = {name: _tensor(value, name, index) for name, value in kept.items()}
        yield {name: value if name in whole else value[None] for name, value in tensors.items()}
        return
    size = len(row[lead])
    batched = {name: value for name, value in row.items() if rank(value) >= 2}
    batched |= _numbers({name: row[name] for name in numbers if name in row}, size)
    if size > 1 and whole and lead not in whole:
        yield from _one_image_each(batched, size, index)
        return
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


def _numbers(row: Mapping[str, Any], size: int) -> dict[str, Any]:
    """A number for each example of a batch, of the entries that hold some; one that stands alone is for all."""
    alone = {name: [value] * size for name, value in row.items() if _is_number(value)}
    return {**alone, **{name: value for name, value in row.items() if rank(value) == 1 and len(value) == size}}


def _is_number(value: Any) -> bool:
    if isinstance(value, (Tensor, np.ndarray)):
        return value.ndim == 0
    return isinstance(value, Number) and not isinstance(value, bool)  # switches are no data


def _patches(row: Mapping[str, Any], index: int) -> dict[str, Tensor]:
    """The entries of a row that hold patches of all its images, or how many these are; none where no row does."""
    found = {}
    for name, grid in PATCHES.items():
        if rank(row.get(name)) == 2 and rank(row.get(grid)) in (1, 2):
            found[name] = _tensor(row[name], name, index)
            found[grid] = _tensor(row[grid], grid, index).reshape(-1, 3)
    return found


def _one_image_each(row: Mapping[str, Any], size: int, index: int) -> Iterator[dict[str, Tensor]]:
    """The examples of a batch of prompts with one image each."""
    patches = {name: grid for name, grid in PATCHES.items() if grid in row}
    tensors = {name: _tensor(value, name, index) for name, value in row.items()}
    counts = {name: tensors[grid].prod(dim=1).tolist() for name, grid in patches.items()}
    agree = all(len(counts[name]) == size and sum(counts[name]) == len(tensors[name]) for name in patches)
    if not agree or any(len(value) != size for name, value in tensors.items() if name not in patches):
        raise CalibrationError(
            f"Example {index} is a batch of {size} prompts whose images cannot be told apart: give a row for each "
            "prompt."
        )
    parts = {name: tensors[name].split(counts[name]) for name in patches}
    for entry in range(size):
        yield {
            name: parts[name][entry] if name in parts else value[entry : entry + 1] for name, value in tensors.items()
        }


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
