"""Examples -> batches."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from optimum_si.errors import CalibrationError, ConfigurationError


def make_batches(
    examples: Sequence[Mapping[str, Tensor]], batch_size: int, pad_token_id: int = 0, padding_side: str = "right"
) -> list[dict[str, Tensor]]:
    """Collate examples, in their order.

    ``input_ids``, ``attention_mask``, ``token_type_ids`` and ``labels`` are padded to the longest of the batch; an
    ``attention_mask`` of ones is made for ``input_ids`` that have none. Other entries must have the same shape.

    Args:
        examples: dicts of tensors with a leading dimension of 1.
        batch_size: examples of a batch; the last batch may be smaller.
        pad_token_id: fills ``input_ids``.
        padding_side: "right" or "left".

    Returns:
        Dicts of tensors with a leading dimension of at most ``batch_size``; dtypes are those of the examples.

    Raises:
        CalibrationError: names the example that has other entries or shapes than the first of its batch, or whose
            ``attention_mask`` hides every token.
        ConfigurationError: on a ``batch_size`` below 1 or an unknown ``padding_side``.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size={batch_size!r}: expected a whole number of at least 1.")
    if padding_side not in ("right", "left"):
        raise ConfigurationError(f"padding_side={padding_side!r} is unknown; accepted: 'right', 'left'.")
    masked = [_with_mask(example, index) for index, example in enumerate(examples)]
    fill = {"input_ids": pad_token_id, "attention_mask": 0, "token_type_ids": 0, "labels": -100}
    return [
        _collate(masked[start : start + batch_size], start, fill, padding_side)
        for start in range(0, len(masked), batch_size)
    ]


def sorted_by_length(examples: Sequence[Mapping[str, Tensor]], first: int) -> list[Mapping[str, Tensor]]:
    """The ``first`` examples, then the others, each part from short to long: batches of them hold little padding.

    Examples without tokens, or of one length, keep their order.
    """
    parts = examples[:first], examples[first:]
    return [example for part in parts for example in sorted(part, key=_tokens)]


def without_padding(example: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An example, tensors with a leading dimension of 1, without the positions that its masks leave out."""
    masks = {side: example.get(f"{side}attention_mask") for side in ("", "decoder_")}
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


def _collate(
    examples: Sequence[dict[str, Tensor]], first: int, fill: Mapping[str, int], padding_side: str
) -> dict[str, Tensor]:
    for index, example in enumerate(examples):
        if example.keys() != examples[0].keys():
            raise CalibrationError(
                f"Example {first + index} has {sorted(example)} and example {first} has {sorted(examples[0])}: give "
                "all examples the same entries."
            )
    batch = {}
    for name in examples[0]:
        tensors = [example[name] for example in examples]
        if name in fill and all(tensor.ndim == 2 for tensor in tensors):
            tensors = _padded(tensors, fill[name], padding_side)
        for index, tensor in enumerate(tensors):
            if tensor.shape != tensors[0].shape:
                raise CalibrationError(
                    f"{name!r} of example {first + index} has shape {list(tensor.shape)} and that of example {first} "
                    f"{list(tensors[0].shape)}; no padding is known for it: make the shapes agree or use batch_size=1."
                )
        batch[name] = torch.cat(tensors)
    return batch


def _padded(tensors: Sequence[Tensor], value: int, padding_side: str) -> list[Tensor]:
    longest = max(tensor.shape[1] for tensor in tensors)
    missing = [longest - tensor.shape[1] for tensor in tensors]
    sides = [(0, amount) if padding_side == "right" else (amount, 0) for amount in missing]
    return [pad(tensor, side, value=value) for tensor, side in zip(tensors, sides, strict=True)]
