"""Numbers of each format as parts, and back: nothing here knows of scales."""

import numpy as np

from .packed import (
    BLOCK_COLUMNS,
    BLOCK_STRIP,
    FOUR_OF_EIGHT,
    MASK_STRIP,
    PAIR_STRIP,
    SLACK,
    STEP,
    TWO_OF_FOUR,
    Packed,
)


def to_parts(numbers: np.ndarray, format: str, dtype: str) -> dict[str, np.ndarray]:
    """Lay out numbers [N, K] as a format has them: values, indices, and starts where it has some.

    Values keep their dtype, but for 2:4 in int4, which are packed two a byte.

    Raises:
        ValueError: for numbers that do not hold the pattern.
    """
    if format == "2:4":
        return _blocks(numbers, dtype) if dtype in ("int8", "int4") else _pairs(numbers)
    return _csr(numbers) if format == "csr" else _masks(numbers, format)


def from_parts(packed: Packed) -> np.ndarray:
    """Returns the numbers in fp32, with the rows and columns that fill up strips and steps."""
    if packed.format == "2:4":
        return _from_blocks(packed) if packed.in_blocks else _from_pairs(packed)
    return _from_csr(packed) if packed.format == "csr" else _from_masks(packed)


def pad(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Fill up with zeros to a multiple of rows and columns."""
    more = -values.shape[0] % rows, -values.shape[1] % columns
    return np.pad(values, ((0, more[0]), (0, more[1]))) if any(more) else values


def _positions(numbers: np.ndarray, kept: int, of: int) -> np.ndarray:
    """Where the non-zeros of each group are, ascending, filled up with other places; [N, K / of, kept]."""
    groups = numbers.reshape(len(numbers), -1, of) != 0
    if int(groups.sum(axis=2).max(initial=0)) > kept:
        raise ValueError(f"the weight does not hold {kept}:{of}: some group has more than {kept} non-zeros.")
    # Stable: non-zeros first, then the others, both in order.
    first = np.argsort(~groups, axis=2, kind="stable")[:, :, :kept]
    return np.sort(first, axis=2)


def _pairs(numbers: np.ndarray) -> dict[str, np.ndarray]:
    numbers = pad(numbers, PAIR_STRIP, STEP)
    places = _positions(numbers, 2, 4)
    values = np.take_along_axis(numbers.reshape(len(numbers), -1, 4), places, axis=2)

    def by_step(array: np.ndarray) -> np.ndarray:
        """[strip, pair, row, step, group, ...] -> [strip, step, pair, group, row, ...]."""
        array = array.reshape(-1, 4, 2, numbers.shape[1] // STEP, 2, *array.shape[2:])
        return np.moveaxis(array, (3, 1, 4, 2), (1, 2, 3, 4))

    case_of = np.zeros((4, 4), np.uint8)
    case_of[tuple(TWO_OF_FOUR.T)] = np.arange(6)
    cases = case_of[places[:, :, 0], places[:, :, 1]]
    codes = 2 * (by_step(cases) * np.array([1, 6])).sum(axis=-1)
    return {"values": by_step(values), "indices": codes.astype(np.uint8).reshape(-1)}


def _from_pairs(packed: Packed) -> np.ndarray:
    rows, columns = _whole(packed, PAIR_STRIP, STEP)
    codes = packed.parts["indices"][:-SLACK, None] // 2
    slots = TWO_OF_FOUR[codes // np.array([1, 6], np.uint8) % 6]

    def in_rows(array: np.ndarray) -> np.ndarray:
        array = array.reshape(-1, columns // STEP, 4, 2, 2, 2).transpose(0, 2, 4, 1, 3, 5)
        return array.reshape(rows, columns // 4, 2)

    dense = np.zeros((rows, columns // 4, 4), np.float32)
    numbers = _load(packed, rows * columns // 2)
    np.put_along_axis(dense, in_rows(slots).astype(np.int64), in_rows(numbers), axis=2)
    return dense.reshape(rows, columns)


def _whole(packed: Packed, strip: int, step: int) -> tuple[int, int]:
    """Rows and columns with those that fill up strips and steps."""
    return -(-packed.shape[0] // strip) * strip, -(-packed.shape[1] // step) * step


def _load(packed: Packed, count: int) -> np.ndarray:
    """The first values of a stream, without scales."""
    raw = packed.parts["values"][:-SLACK]
    if packed.dtype != "int4":
        dtype = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}[packed.dtype]
        return raw.view(dtype)[:count].astype(np.float32)
    return (np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[:count].astype(np.int16) - 8).astype(np.float32)


def _blocks(numbers: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    numbers = pad(numbers, BLOCK_STRIP, BLOCK_COLUMNS)
    places = _positions(numbers, 2, 4)
    values = np.take_along_axis(numbers.reshape(len(numbers), -1, 4), places, axis=2)

    def in_blocks(array: np.ndarray) -> np.ndarray:
        """[strip, chunk, block, slot], slots by row, group and number."""
        chunks = numbers.shape[1] // BLOCK_COLUMNS
        array = array.reshape(-1, BLOCK_STRIP, chunks, 4, 8).transpose(0, 2, 3, 1, 4)
        return array.reshape(-1, chunks, 4, 32).astype(np.uint8)

    if dtype == "int4":
        nibbles = in_blocks(values + 8)
        packed = nibbles[:, :, 0::2] | nibbles[:, :, 1::2] << 4
    else:
        packed = in_blocks(values)
    slots = in_blocks(places) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    return {"values": packed.reshape(-1), "indices": np.bitwise_or.reduce(slots, axis=2).reshape(-1)}


def _from_blocks(packed: Packed) -> np.ndarray:
    rows, columns = _whole(packed, BLOCK_STRIP, BLOCK_COLUMNS)
    chunks = columns // BLOCK_COLUMNS
    values = packed.parts["values"][:-SLACK]
    if packed.dtype == "int4":
        pairs = values.reshape(-1, chunks, 2, 1, 32)
        values = np.concatenate([pairs & 15, pairs >> 4], axis=3).astype(np.int8) - 8
    else:
        values = values.view(np.int8)
    bits = packed.parts["indices"][:-SLACK].reshape(-1, chunks, 1, 32)
    slots = bits >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3

    def in_rows(array: np.ndarray) -> np.ndarray:
        return array.reshape(-1, chunks, 4, BLOCK_STRIP, 4, 2).transpose(0, 3, 1, 2, 4, 5).reshape(rows, -1, 2)

    dense = np.zeros((rows, columns // 4, 4), np.float32)
    np.put_along_axis(dense, in_rows(slots).astype(np.int64), in_rows(values).astype(np.float32), axis=2)
    return dense.reshape(rows, columns)


def _masks(numbers: np.ndarray, format: str) -> dict[str, np.ndarray]:
    numbers = pad(numbers, MASK_STRIP, STEP)
    kept = numbers != 0
    if format == "4:8":
        kept = np.zeros((len(numbers), numbers.shape[1] // STEP, STEP), bool)
        np.put_along_axis(kept, _positions(numbers, 4, 8), True, axis=2)
    shape = -1, MASK_STRIP, numbers.shape[1] // STEP, STEP
    strips, kept = numbers.reshape(shape).transpose(0, 2, 1, 3), kept.reshape(shape).transpose(0, 2, 1, 3)
    masks = np.packbits(kept, axis=3, bitorder="little").reshape(-1)
    parts = {"values": strips[kept], "indices": masks}
    if format == "4:8":
        parts["indices"] = 2 * np.searchsorted(FOUR_OF_EIGHT, masks).astype(np.uint8)
    else:
        starts = np.concatenate([[0], np.cumsum(kept.reshape(len(kept), -1).sum(axis=1))]).astype(np.uint32)
        parts["starts"] = starts.view(np.uint8)
    return parts


def _from_masks(packed: Packed) -> np.ndarray:
    rows, columns = _whole(packed, MASK_STRIP, STEP)
    masks = packed.parts["indices"][:-SLACK]
    if packed.format == "4:8":
        masks = FOUR_OF_EIGHT[masks // 2]
    masks = masks.reshape(-1, columns // STEP, MASK_STRIP, 1)
    kept = np.unpackbits(masks, axis=3, bitorder="little").astype(bool)
    strips = np.zeros(kept.shape, np.float32)
    strips[kept] = _load(packed, int(kept.sum()))
    return strips.transpose(0, 2, 1, 3).reshape(rows, columns)


def _csr(numbers: np.ndarray) -> dict[str, np.ndarray]:
    kept = numbers != 0
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.uint32)
    columns = np.nonzero(kept)[1].astype(np.uint16)
    return {"values": numbers[kept], "indices": columns.view(np.uint8), "starts": starts.view(np.uint8)}


def _from_csr(packed: Packed) -> np.ndarray:
    starts = packed.parts["starts"].view(np.uint32).astype(np.int64)
    dense = np.zeros(packed.shape, np.float32)
    rows = np.repeat(np.arange(packed.shape[0]), np.diff(starts))
    dense[rows, packed.parts["indices"][:-SLACK].view(np.uint16)] = _load(packed, int(starts[-1]))
    return dense
