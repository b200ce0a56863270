"""Examples -> batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from optimum_si.errors import CalibrationError, ConfigurationError


#: What is padded along its tokens, and with what; token ids get the tokenizer's padding.
FILL = {
    "input_ids": None,
    "attention_mask": 0,
    "token_type_ids": 0,
    "mm_token_type_ids": 0,
    "labels": -100,
    "decoder_input_ids": None,
    "decoder_attention_mask": 0,
}
#: Features that are padded with zeros along their time, where an attention_mask tells which are real.
FEATURES = ("input_values", "input_features", "inputs_embeds")


def make_batches(
    examples: Sequence[Mapping[str, Tensor]], batch_size: int, pad_token_id: int = 0, padding_side: str = "right"
) -> list[dict[str, Tensor]]:
    """Collate examples, in their order.

    Token ids and what goes with them, labels, and features that have an ``attention_mask``, are padded to the longest
    of the batch; an ``attention_mask`` of ones is made for ``input_ids`` that have none. A batch ends where an example
    has other entries, or another shape of what cannot be padded; one with patches of several images, which have no
    batch axis, is a batch of its own.

    Args:
        examples: dicts of tensors with a leading dimension of 1.
        batch_size: most examples of a batch.
        pad_token_id: fills ``input_ids`` and ``decoder_input_ids``.
        padding_side: "right" or "left".

    Returns:
        Dicts of tensors with a leading dimension of at most ``batch_size``; dtypes are those of the examples.

    Raises:
        CalibrationError: names the example whose ``attention_mask`` hides every token.
        ConfigurationError: on a ``batch_size`` below 1 or an unknown ``padding_side``.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size!r}: expected a whole number of at least 1.")
    if padding_side not in ("right", "left"):
        raise ConfigurationError(f"padding_side={padding_side!r} is unknown; accepted: 'right', 'left'.")
    groups: list[list[dict[str, Tensor]]] = []
    last = None
    for index, example in enumerate(examples):
        masked = _with_mask(example, index)
        kind = None if _is_alone(masked) else layout(masked)
        if kind is None or kind != last or len(groups[-1]) == batch_size:
            groups.append([])
        groups[-1].append(masked)
        last = kind
    return [_collate(group, pad_token_id, padding_side) for group in groups]


def layout(example: Mapping[str, Tensor]) -> tuple[tuple[str, tuple[int | None, ...]], ...]:
    """What examples must share to be padded into one batch: entries and shapes, None where any length will do."""
    shapes = []
    for name in sorted(example):
        axis, shape = _time_axis(name, example), list[int | None](example[name].shape)
        if axis is not None:
            shape[axis] = None
        shapes.append((name, tuple(shape)))
    return tuple(shapes)


def sorted_by_length(examples: Sequence[Mapping[str, Tensor]], first: int) -> list[Mapping[str, Tensor]]:
    """The ``first`` examples, then the others, each part from short to long: batches of them hold little padding.

    Examples that cannot be padded into one batch are kept apart. Those without tokens, or of one length, keep their
    order.
    """
    result: list[Mapping[str, Tensor]] = []
    for part in (examples[:first], examples[first:]):
        kinds: dict[Any, list[Mapping[str, Tensor]]] = {}
        for example in part:
            kinds.setdefault(layout(example), []).append(example)
        result += [example for kind in kinds.values() for example in sorted(kind, key=_tokens)]
    return result


def without_padding(example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An example, tensors with a leading dimension of 1, without the positions that its masks leave out.

    Where a mask belongs to features with their time behind the others (Whisper's spectrograms, whose length is fixed),
    nothing is left out.
    """
    masks = {side: example.get(f"{side}attention_mask") for side in ("", "decoder_")}
    for name, value in example.items():
        if name in FEATURES and value.ndim > 2 and _time_axis(name, example) != 1:
            masks[""] = None
    result = dict(example)
    for name, value in example.items():
        mask = masks["decoder_" if name.startswith("decoder_") else ""]
        if mask is not None and mask.ndim == 2 and value.shape[:2] == mask.shape:
            result[name] = value[:, mask[0].bool()]
    return result


def _tokens(example: Mapping[str, Tensor]) -> int:
    """Tokens that are not padding."""
    if "attention_mask" in example:
        return int(example["attention_mask"].sum())
    return example["input_ids"].numel() if "input_ids" in example else 0


def _with_mask(example: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    result = dict(example)
    if "input_ids" in example:
        result.setdefault("attention_mask", torch.ones_like(example["input_ids"]))
    if "attention_mask" in result and not result["attention_mask"].any():
        raise CalibrationError(f"The attention_mask of example {index} is all zero: drop the example or its mask.")
    return result


def _is_alone(example: Mapping[str, Tensor]) -> bool:
    """Whether entries have no common batch axis, as patches of images beside the tokens of one prompt."""
    return any(len(value) != 1 for value in example.values())


def _time_axis(name: str, example: Mapping[str, Tensor]) -> int | None:
    """The axis of an entry along which it can be padded; None where it cannot."""
    value, mask = example[name], example.get("attention_mask")
    if name in FILL:
        return 1 if value.ndim == 2 else None
    if name in FEATURES and value.ndim > 1 and mask is not None and mask.ndim == 2:
        return next((axis for axis in (1, value.ndim - 1) if value.shape[axis] == mask.shape[1]), None)
    return None


def _collate(examples: Sequence[dict[str, Tensor]], pad_token_id: int, padding_side: str) -> dict[str, Tensor]:
    lengths = {example["decoder_input_ids"].shape[-1] for example in examples if "decoder_input_ids" in example}
    if len(lengths) > 1 and "decoder_attention_mask" not in examples[0]:
        examples = [
            {**example, "decoder_attention_mask": torch.ones_like(example["decoder_input_ids"])}
            for example in examples
        ]
    batch = {}
    for name in examples[0]:
        tensors = [example[name] for example in examples]
        axis = _time_axis(name, examples[0])
        if axis is not None and len({tensor.shape[axis] for tensor in tensors}) > 1:
            fill = FILL.get(name, 0)
            tensors = _padded(tensors, axis, pad_token_id if fill is None else fill, padding_side)
        batch[name] = torch.cat(tensors)
    return batch


def _padded(tensors: Sequence[Tensor], axis: int, value: int, padding_side: str) -> list[Tensor]:
    longest = max(tensor.shape[axis] for tensor in tensors)
    behind = [0, 0] * (tensors[0].ndim - 1 - axis)  # axes after it, which come first
    missing = [longest - tensor.shape[axis] for tensor in tensors]
    sides = [[*behind, *((0, amount) if padding_side == "right" else (amount, 0))] for amount in missing]
    return [pad(tensor, side, value=value) for tensor, side in zip(tensors, sides, strict=True)]
