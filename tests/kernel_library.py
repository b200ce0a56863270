"""The compiled kernels, called without ONNX Runtime, and weights to call them with."""

import ctypes

import numpy as np

from optimum_si.onnx.kernels import FORMATS, KINDS, Packed, library_path


PORTABLE, AVX2 = 0, 1
_PARTS = ("values", "indices", "starts", "scales")


def problem(packed: Packed) -> str | None:
    """What the library has against a packed weight."""
    function = _library().optimum_si_problem
    function.restype = ctypes.c_char_p
    found = function(*_arguments(packed))
    return None if found is None else found.decode()


def multiply(packed: Packed, x: np.ndarray, bias: np.ndarray | None = None, isa: int = AVX2) -> np.ndarray | None:
    """x W^T + bias; None on machines without the instructions."""
    x = np.ascontiguousarray(x, np.float32)
    result = np.full((len(x), packed.shape[0]), np.nan, np.float32)
    function = _library().optimum_si_multiply
    where = [None if array is None else array.ctypes.data_as(ctypes.c_void_p) for array in (x, bias, result)]
    state = function(isa, *_arguments(packed), where[0], ctypes.c_int64(len(x)), where[1], where[2])
    assert state in (0, 2), state
    return result if state == 0 else None


def sparse_weight(generator: np.random.Generator, rows: int, columns: int, format: str, share: float) -> np.ndarray:
    """A weight that a format can hold, [rows, columns]; ``share`` of zeros, beyond those of a pattern."""
    weight = generator.standard_normal((rows, columns)).astype(np.float32)
    kept = generator.random((rows, columns)) >= share
    if ":" in format:
        most, of = map(int, format.split(":"))
        wide = np.pad(generator.random((rows, columns)), ((0, 0), (0, -columns % of)))
        ranks = wide.reshape(rows, -1, of).argsort(axis=2).argsort(axis=2)
        kept &= (ranks < most).reshape(rows, -1)[:, :columns]
    return weight * kept


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(library_path()))


def _arguments(packed: Packed) -> tuple:
    parts = [packed.parts[name] for name in _PARTS]
    return (
        FORMATS.index(packed.format),
        KINDS.index(packed.kind),
        (ctypes.c_int64 * 3)(*packed.shape, packed.group),
        (ctypes.c_void_p * 4)(*(part.ctypes.data for part in parts)),
        (ctypes.c_size_t * 4)(*(part.nbytes for part in parts)),
    )
