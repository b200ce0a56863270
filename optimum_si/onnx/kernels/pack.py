"""Weights become packed, and dense again."""

import numpy as np

from .layouts import from_parts, pad, to_parts
from .packed import BLOCK_STRIP, GROUP, MOST_CSR_COLUMNS, SLACK, Packed


def pack(
    weight: np.ndarray, format: str, dtype: str = "fp32", group: int = 0, scales: np.ndarray | None = None
) -> Packed:
    """Pack W [N, K].

    Args:
        weight: fp32 or fp16; with ``scales`` integers already.
        format: one of :data:`~optimum_si.onnx.kernels.FORMATS`; "2:4" and "4:8" need a weight that holds the pattern.
        dtype: that of the values, one of :data:`~optimum_si.onnx.kernels.DTYPES`.
        group: number of columns that share a scale, for int8 and int4: 32 or a multiple of 64; 0 is a whole row for
            int8 and 32 for int4.
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
    numbers, group, found = _quantize(weight, dtype, group, scales)
    parts = to_parts(numbers, format, dtype)
    parts["values"] = _with_slack(_to_bytes(parts["values"], dtype))
    parts["indices"] = _with_slack(parts["indices"])
    parts["scales"] = _pack_scales(found, format, dtype)
    parts.setdefault("starts", np.zeros(0, np.uint8))
    return Packed(
        format, dtype, (rows, columns), group, {name: np.ascontiguousarray(part) for name, part in parts.items()}
    )


def unpack(packed: Packed) -> np.ndarray:
    """Returns the fp32 matrix [N, K] that kernels multiply by."""
    rows, columns = packed.shape
    dense = from_parts(packed)[:rows, :columns].astype(np.float32)
    if not packed.group:
        return dense
    groups = -(-columns // packed.group)
    scales = packed.parts["scales"].view(np.float16 if packed.dtype == "int4" else np.float32).astype(np.float32)
    if packed.format != "csr":
        scales = scales.reshape(-1, groups, BLOCK_STRIP).transpose(0, 2, 1).reshape(-1, groups)[:rows]
    return dense * np.repeat(scales.reshape(rows, groups), min(packed.group, columns), axis=1)[:, :columns]


def _quantize(
    weight: np.ndarray, dtype: str, group: int, scales: np.ndarray | None
) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Numbers to store, columns that share a scale, and the scales."""
    rows, columns = weight.shape
    if dtype in ("fp32", "fp16"):
        with np.errstate(over="ignore"):
            numbers = weight.astype(np.float32 if dtype == "fp32" else np.float16)
        if not np.isfinite(numbers).all():
            raise ValueError("the weight does not fit into fp16.")
        return numbers, 0, None
    group = group or (columns if dtype == "int8" else GROUP)
    if group < columns and group != GROUP and group % (2 * GROUP):
        raise ValueError(f"group={group} is neither {GROUP} nor a multiple of {2 * GROUP}.")
    groups = -(-columns // group)
    lowest = -128 if dtype == "int8" else -8
    if scales is not None:
        if weight.min() < lowest or weight.max() >= -lowest:
            raise ValueError(f"an integer does not fit into {dtype}: {lowest} to {-lowest - 1} do.")
        return weight.astype(np.int8), group, scales.reshape(rows, groups)
    padded = pad(weight.astype(np.float32), 1, group).reshape(rows, groups, group)
    # As ONNX Runtime does: the weight of the largest magnitude takes the lowest code, whatever its sign, so that
    # weights on the grid of the dense exports (8 bits: every other code of these) are not rounded again.
    extreme = np.take_along_axis(padded, np.abs(padded).argmax(axis=2)[:, :, None], axis=2)[:, :, 0]
    found = extreme / np.float32(lowest)
    if dtype == "int4":
        with np.errstate(over="ignore"):
            found = found.astype(np.float16).astype(np.float32)
        if not np.isfinite(found).all():
            raise ValueError("the weight is too large for int4, whose scales are fp16.")
    divisor = np.where(found != 0, found, 1)[:, :, None]
    numbers = np.clip(np.rint(padded / divisor), lowest, -lowest - 1).astype(np.int8)
    return numbers.reshape(rows, groups * group)[:, :columns], group, found


def _to_bytes(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "int4" or values.dtype == np.uint8:
        return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    nibbles = np.append(values.reshape(-1), [0] * (values.size % 2)).astype(np.int8) + 8
    return (nibbles[::2] | nibbles[1::2] << 4).astype(np.uint8)


def _pack_scales(scales: np.ndarray | None, format: str, dtype: str) -> np.ndarray:
    if scales is None:
        return np.zeros(0, np.uint8)
    scales = scales.astype(np.float16 if dtype == "int4" else np.float32)
    if format != "csr":
        scales = pad(scales, BLOCK_STRIP, 1)
        scales = scales.reshape(-1, BLOCK_STRIP, scales.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(scales).reshape(-1).view(np.uint8)


def _with_slack(part: np.ndarray) -> np.ndarray:
    return np.concatenate([part, np.zeros(SLACK, np.uint8)])
