"""A sparse matrix as the bytes that the kernels read, and back. Version 1 of the layout; ``packed.h`` knows the same.

All layouts are of W [N, K], reduced over K. Rows are padded with zeros to whole strips, columns to whole steps of 8 or
chunks (not in csr):

- "2:4" in floating point: strips of 8 rows, which are 4 pairs; for each strip, step and pair 8 slots (group of 4, row,
  number), which an AVX2 register holds. ``values`` has one for each slot, ``indices`` a byte for each group of
  both rows: twice (case of the first + 6 x case of the second row), cases in the order of :data:`TWO_OF_FOUR`.
- "2:4" in integers: strips of 4 rows, chunks of 64 columns, which are 4 blocks of 16; a block has 32 slots (row,
  group, number). ``values`` has a byte for each slot; 4 bits: 2 x 32 bytes a chunk, blocks 0 and 2 in the low, 1 and
  3 in the high nibbles. ``indices`` has 32 bytes a chunk with 2 bits for each block.
- "bitmask": strips of 4 rows; ``indices`` has a byte for each strip, step and row, bit c for column c; ``values``
  follow the bits; ``starts`` is the first value of each strip, and their number, as uint32.
- "4:8": as bitmasks, but ``indices`` are twice the place of the mask in :data:`FOUR_OF_EIGHT`, and there are no
  ``starts``: each has 4 values.
- "csr": ``indices`` are uint16 columns, ``starts`` the first value of each row, as uint32.

Values are fp32, fp16, int8 with fp32 scales, or 4 bits + 8 (two a byte, the first one low) with fp16 scales; scales
are [strips, groups, 4], of csr [N, groups]. ``SLACK`` zero bytes follow values and indices: kernels read whole
registers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


VERSION = 1
FORMATS = ("2:4", "4:8", "bitmask", "csr")
KINDS = ("fp32", "fp16", "int8", "int4")
SLACK = 64
STEP, PAIR_STRIP, MASK_STRIP = 8, 8, 4
BLOCK_STRIP, BLOCK_COLUMNS = 4, 64
#: Columns that share a scale where nothing else is said: of int4, and the least of any.
GROUP = 32
#: Positions of 2:4, and masks of 4:8, whose places are codes.
TWO_OF_FOUR = np.array([(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], np.uint8)
FOUR_OF_EIGHT = np.array([mask for mask in range(256) if mask.bit_count() == 4], np.uint8)
#: Columns that 16-bit indices reach.
MOST_CSR_COLUMNS = 65_536


@dataclass(frozen=True, eq=False)
class Packed:
    """A packed matrix.

    Args:
        format: of :data:`FORMATS`.
        kind: of :data:`KINDS`, how values are stored.
        shape: N, K.
        group: columns that share a scale; 0 for floating point.
        parts: "values", "indices", "starts" and "scales", uint8 each; empty where a format has none.
    """

    format: str
    kind: str
    shape: tuple[int, int]
    group: int
    parts: Mapping[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        """Of all parts."""
        return sum(part.nbytes for part in self.parts.values())


def pack(
    weight: np.ndarray, format: str, kind: str = "fp32", group: int = 0, scales: np.ndarray | None = None
) -> Packed:
    """Pack W [N, K].

    Args:
        weight: fp32 or fp16; with ``scales`` integers already.
        format: of :data:`FORMATS`; "2:4" and "4:8" need a weight that holds the pattern.
        kind: of :data:`KINDS`.
        group: int8 and int4: columns that share a scale, 32 or a multiple of 64; 0 is a whole row for int8 and 32 for
            int4.
        scales: [N, groups], for values that are integers already; None finds symmetric ones.

    Raises:
        ValueError: for a weight that does not hold the pattern, is not finite or too wide, or a group that does not
            fit.
    """
    rows, columns = weight.shape
    if format == "csr" and columns > MOST_CSR_COLUMNS:
        raise ValueError(f"csr has 16-bit columns, and the weight has {columns}: take 'bitmask'.")
    if not np.isfinite(weight).all():
        raise ValueError("the weight holds NaN or infinity.")
    if np.count_nonzero(weight) >= 2**32:
        raise ValueError("the weight has more than 2^32 non-zeros: pack parts of it.")
    numbers, group, found = _values(weight, kind, group, scales)
    if format == "2:4":
        parts = _blocks(numbers, kind) if _in_blocks(format, kind) else _pairs(numbers)
    else:
        parts = _csr(numbers) if format == "csr" else _masks(numbers, format)
    parts["values"] = _with_slack(_stored(parts["values"], kind))
    parts["indices"] = _with_slack(parts["indices"])
    parts["scales"] = _stored_scales(found, format, kind)
    parts.setdefault("starts", np.zeros(0, np.uint8))
    return Packed(
        format, kind, (rows, columns), group, {name: np.ascontiguousarray(part) for name, part in parts.items()}
    )


def unpack(packed: Packed) -> np.ndarray:
    """The fp32 matrix [N, K] that kernels multiply by."""
    rows, columns = packed.shape
    if packed.format == "2:4":
        numbers = _from_blocks(packed) if _in_blocks(packed.format, packed.kind) else _from_pairs(packed)
    else:
        numbers = _from_csr(packed) if packed.format == "csr" else _from_masks(packed)
    dense = numbers[:rows, :columns].astype(np.float32)
    if not packed.group:
        return dense
    groups = -(-columns // packed.group)
    scales = packed.parts["scales"].view(np.float16 if packed.kind == "int4" else np.float32).astype(np.float32)
    if packed.format != "csr":
        scales = scales.reshape(-1, groups, BLOCK_STRIP).transpose(0, 2, 1).reshape(-1, groups)[:rows]
    return dense * np.repeat(scales.reshape(rows, groups), packed.group, axis=1)[:, :columns]


def _in_blocks(format: str, kind: str) -> bool:
    return format == "2:4" and kind in ("int8", "int4")


def _values(
    weight: np.ndarray, kind: str, group: int, scales: np.ndarray | None
) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Numbers to store, columns that share a scale, and the scales."""
    rows, columns = weight.shape
    if kind in ("fp32", "fp16"):
        with np.errstate(over="ignore"):
            numbers = weight.astype(np.float32 if kind == "fp32" else np.float16)
        if not np.isfinite(numbers).all():
            raise ValueError("the weight does not fit into fp16.")
        return numbers, 0, None
    group = group or (columns if kind == "int8" else GROUP)
    if group < columns and group != GROUP and group % (2 * GROUP):
        raise ValueError(f"group={group} is neither {GROUP} nor a multiple of {2 * GROUP}.")
    groups = -(-columns // group)
    lowest = -128 if kind == "int8" else -8
    if scales is not None:
        if weight.min() < lowest or weight.max() >= -lowest:
            raise ValueError(f"an integer does not fit into {kind}: {lowest} to {-lowest - 1} do.")
        return weight.astype(np.int8), group, scales.reshape(rows, groups)
    padded = _padded(weight.astype(np.float32), 1, group).reshape(rows, groups, group)
    # As ONNX Runtime does: the weight of the largest magnitude takes the lowest code, whatever its sign, so that
    # weights on the grid of the dense exports (8 bits: every other code of these) are not rounded again.
    extreme = np.take_along_axis(padded, np.abs(padded).argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    found = extreme / np.float32(lowest)
    if kind == "int4":
        with np.errstate(over="ignore"):
            found = found.astype(np.float16).astype(np.float32)
        if not np.isfinite(found).all():
            raise ValueError("the weight is too large for int4, whose scales are fp16.")
    divisor = np.where(found != 0, found, 1)[:, :, None]
    numbers = np.clip(np.rint(padded / divisor), lowest, -lowest - 1).astype(np.int8)
    return numbers.reshape(rows, groups * group)[:, :columns], group, found


def _padded(values: np.ndarray, rows: int, columns: int) -> np.ndarray:
    more = -values.shape[0] % rows, -values.shape[1] % columns
    return np.pad(values, ((0, more[0]), (0, more[1]))) if any(more) else values


def _stored(values: np.ndarray, kind: str) -> np.ndarray:
    if kind != "int4" or values.dtype == np.uint8:
        return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    nibbles = np.append(values.reshape(-1), [0] * (values.size % 2)).astype(np.int8) + 8
    return (nibbles[::2] | nibbles[1::2] << 4).astype(np.uint8)


def _stored_scales(scales: np.ndarray | None, format: str, kind: str) -> np.ndarray:
    if scales is None:
        return np.zeros(0, np.uint8)
    scales = scales.astype(np.float16 if kind == "int4" else np.float32)
    if format != "csr":
        scales = _padded(scales, BLOCK_STRIP, 1)
        scales = scales.reshape(-1, BLOCK_STRIP, scales.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(scales).reshape(-1).view(np.uint8)


def _with_slack(part: np.ndarray) -> np.ndarray:
    return np.concatenate([part, np.zeros(SLACK, np.uint8)])


def _positions(numbers: np.ndarray, kept: int, of: int) -> np.ndarray:
    """Where the non-zeros of each group are, ascending, filled up with other places; [N, K / of, kept]."""
    groups = numbers.reshape(len(numbers), -1, of) != 0
    if int(groups.sum(axis=2).max(initial=0)) > kept:
        raise ValueError(f"the weight does not hold {kept}:{of}: some group has more than {kept} non-zeros.")
    # Stable: non-zeros first, then the others, both in order.
    first = np.argsort(~groups, axis=2, kind="stable")[:, :, :kept]
    return np.sort(first, axis=2)


def _pairs(numbers: np.ndarray) -> dict[str, np.ndarray]:
    numbers = _padded(numbers, PAIR_STRIP, STEP)
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
    numbers = _loaded(packed, rows * columns // 2)
    np.put_along_axis(dense, in_rows(slots).astype(np.int64), in_rows(numbers), axis=2)
    return dense.reshape(rows, columns)


def _whole(packed: Packed, strip: int, step: int) -> tuple[int, int]:
    """Rows and columns with those that fill up strips and steps."""
    return -(-packed.shape[0] // strip) * strip, -(-packed.shape[1] // step) * step


def _loaded(packed: Packed, count: int) -> np.ndarray:
    raw = packed.parts["values"][:-SLACK]
    if packed.kind != "int4":
        kind = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}[packed.kind]
        return raw.view(kind)[:count].astype(np.float32)
    return (np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)[:count].astype(np.int16) - 8).astype(np.float32)


def _blocks(numbers: np.ndarray, kind: str) -> dict[str, np.ndarray]:
    numbers = _padded(numbers, BLOCK_STRIP, BLOCK_COLUMNS)
    places = _positions(numbers, 2, 4)
    values = np.take_along_axis(numbers.reshape(len(numbers), -1, 4), places, axis=2)

    def in_blocks(array: np.ndarray) -> np.ndarray:
        """[strip, chunk, block, slot], slots by row, group and number."""
        chunks = numbers.shape[1] // BLOCK_COLUMNS
        array = array.reshape(-1, BLOCK_STRIP, chunks, 4, 8).transpose(0, 2, 3, 1, 4)
        return array.reshape(-1, chunks, 4, 32).astype(np.uint8)

    if kind == "int4":
        nibbles = in_blocks(values + 8)
        stored = nibbles[:, :, 0::2] | nibbles[:, :, 1::2] << 4
    else:
        stored = in_blocks(values)
    slots = in_blocks(places) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    return {"values": stored.reshape(-1), "indices": np.bitwise_or.reduce(slots, axis=2).reshape(-1)}


def _from_blocks(packed: Packed) -> np.ndarray:
    rows, columns = _whole(packed, BLOCK_STRIP, BLOCK_COLUMNS)
    chunks = columns // BLOCK_COLUMNS
    values = packed.parts["values"][:-SLACK]
    if packed.kind == "int4":
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
    numbers = _padded(numbers, MASK_STRIP, STEP)
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
    strips[kept] = _loaded(packed, int(kept.sum()))
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
    dense[rows, packed.parts["indices"][:-SLACK].view(np.uint16)] = _loaded(packed, int(starts[-1]))
    return dense
