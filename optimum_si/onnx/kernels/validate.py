"""Whether the parts of a packed weight fit together, where no library says so; ``packed.cpp`` asks the same."""

import numpy as np

from .packed import (
    BLOCK_COLUMNS,
    DTYPES,
    FORMATS,
    FOUR_OF_EIGHT,
    GROUP,
    MASK_STRIP,
    MOST_CSR_COLUMNS,
    PAIR_STRIP,
    SLACK,
    STEP,
    TWO_OF_FOUR,
    Packed,
)


#: Bits of a value.
_BITS = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}


def check(packed: Packed) -> None:
    """Find damaged parts.

    Raises:
        ValueError: says what is wrong.
    """
    if packed.format not in FORMATS or packed.dtype not in DTYPES:
        raise ValueError(f"format {packed.format!r} with values in {packed.dtype!r} is unknown.")
    (rows, columns), group = packed.shape, packed.group
    whole = packed.dtype.startswith("fp")
    if rows < 1 or columns < 1 or whole != (group == 0) or not 0 <= group <= 2**31:
        raise ValueError("shape and groups do not fit together.")
    if group and group < columns and group != GROUP and group % (2 * GROUP):
        raise ValueError(f"group is neither {GROUP} nor a multiple of {2 * GROUP}.")
    strip, step = _unit(packed)
    high, wide = -(-rows // strip) * strip, -(-columns // step) * step
    groups = -(-columns // group) if group else 0
    _size(packed, "scales", high * groups * (2 if packed.dtype == "int4" else 4))
    if packed.format in ("2:4", "4:8"):
        _size(packed, "starts", 0)
        values, indices = high * wide // 2, high * wide // 8
    else:
        values, indices = _starts(packed, rows if packed.format == "csr" else high // MASK_STRIP), high * wide // 8
        indices = 2 * values if packed.format == "csr" else indices
    _size(packed, "values", -(-values * _BITS[packed.dtype] // 8) + SLACK)
    _size(packed, "indices", indices + SLACK)
    _indices(packed, packed.parts["indices"][:-SLACK], (rows, columns), (high, wide))


def _unit(packed: Packed) -> tuple[int, int]:
    """Rows of a strip and columns of a step."""
    if packed.format == "csr":
        return 1, 1
    if packed.format == "2:4":
        return (PAIR_STRIP, STEP) if packed.dtype.startswith("fp") else (MASK_STRIP, BLOCK_COLUMNS)
    return MASK_STRIP, STEP


def _size(packed: Packed, name: str, expected: int) -> None:
    if packed.parts[name].nbytes != expected:
        raise ValueError(f"{name} have {packed.parts[name].nbytes} bytes, and the shape needs {expected}.")


def _starts(packed: Packed, count: int) -> int:
    """Number of all values."""
    _size(packed, "starts", 4 * (count + 1))
    starts = packed.parts["starts"].view(np.uint32).astype(np.int64)
    if starts[0] or (np.diff(starts) < 0).any():
        raise ValueError("starts are not ascending from 0.")
    return int(starts[-1])


def _indices(packed: Packed, indices: np.ndarray, shape: tuple[int, int], padded: tuple[int, int]) -> None:
    (rows, columns), (high, wide) = shape, padded
    if packed.format == "4:8" or (packed.format == "2:4" and packed.dtype.startswith("fp")):
        if (indices % 2).any() or indices.max() >= 2 * (
            len(FOUR_OF_EIGHT) if packed.format == "4:8" else len(TWO_OF_FOUR) ** 2
        ):
            raise ValueError("an index is no code of the pattern: the pattern does not hold.")
    elif packed.format == "2:4":
        slots = indices.reshape(-1, 2, 1) >> np.array([0, 2, 4, 6], np.uint8) & 3
        if (slots[:, 0] >= slots[:, 1]).any():
            raise ValueError("positions in a group are not ascending: the pattern does not hold.")
    elif packed.format == "bitmask":
        masks = indices.reshape(-1, wide // STEP, MASK_STRIP)
        bits = np.unpackbits(masks[..., None], axis=3, bitorder="little")
        counts = bits.reshape(len(bits), -1).sum(axis=1, dtype=np.int64)
        dense = bits.transpose(0, 2, 1, 3).reshape(high, wide)
        if dense[rows:].any() or dense[:, columns:].any():
            raise ValueError("a mask has bits that the weight lacks.")
        if (counts != np.diff(packed.parts["starts"].view(np.uint32).astype(np.int64))).any():
            raise ValueError("masks and starts count differently many values.")
    else:
        found = indices.view(np.uint16).astype(np.int64)
        starts = packed.parts["starts"].view(np.uint32).astype(np.int64)
        row = np.repeat(np.arange(rows), np.diff(starts))
        if columns > MOST_CSR_COLUMNS or (found >= columns).any() or (np.diff(row * 65_536 + found) <= 0).any():
            raise ValueError("column indices are out of range or not ascending.")
