"""The compiled kernels, called without ONNX Runtime, and weights to call them with."""

import ctypes
import functools
import hashlib
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock

from optimum_si.onnx.kernels import DTYPES, FORMATS, Packed, library_path
from optimum_si.onnx.kernels import build as building
from optimum_si.onnx.kernels.library import cache_directory


PORTABLE, AVX2, AVX512 = ISAS = range(3)
#: Runs kernels for AVX-512 on machines without it.
EMULATION = Path(__file__).parent / "avx512_emulation.h"
_PARTS = ("values", "indices", "starts", "scales")


def problem(packed: Packed) -> str | None:
    """What the library has against a packed weight."""
    function = _library().optimum_si_problem
    function.restype = ctypes.c_char_p
    found = function(*_arguments(packed))
    return None if found is None else found.decode()


def multiply(packed: Packed, x: np.ndarray, bias: np.ndarray | None = None, isa: int = AVX2) -> np.ndarray | None:
    """x W^T + bias; None on machines without the instructions, of which those of AVX-512 are emulated."""
    x = np.ascontiguousarray(x, np.float32)
    result = np.full((len(x), packed.shape[0]), np.nan, np.float32)
    function = (_emulated() if isa == AVX512 else _library()).optimum_si_multiply
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


def compiled(sources: Iterable[Path], folder: Path, flags: Sequence[str]) -> list[str]:
    """Object files of sources, in which AVX-512 is emulated."""
    command = building.compiler()
    assert command is not None
    objects = []
    for source in sources:
        extra = building.TARGET_FLAGS.get(source.name, ())
        if source.name == "avx512.cpp":
            extra = (*building.TARGET_FLAGS["avx2.cpp"], "-include", str(EMULATION))
        objects.append(str(folder / f"{source.stem}.o"))
        words = [*command, "-std=c++17", *flags, "-DSI_EMULATED_AVX512", *extra, "-c", str(source), "-o", objects[-1]]
        subprocess.run(words, check=True)
    return objects


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(str(library_path()))


@functools.cache
def _emulated() -> ctypes.CDLL:
    # Beside the real one, for all workers and later runs.
    command = building.compiler()
    key = hashlib.sha256(building.source_key(command).encode() + EMULATION.read_bytes()).hexdigest()[:16]
    library = cache_directory() / f"{key}-emulated.so"
    library.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{library}.lock"):
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=library.parent) as folder:
                objects = compiled(building.sources_here(), Path(folder), ["-O1", "-fPIC"])
                made = Path(folder) / library.name
                subprocess.run([*command, "-shared", *objects, "-o", str(made)], check=True)
                made.replace(library)
    return ctypes.CDLL(str(library))


def _arguments(packed: Packed) -> tuple:
    parts = [packed.parts[name] for name in _PARTS]
    return (
        FORMATS.index(packed.format),
        DTYPES.index(packed.dtype),
        (ctypes.c_int64 * 3)(*packed.shape, packed.group),
        (ctypes.c_void_p * 4)(*(part.ctypes.data for part in parts)),
        (ctypes.c_size_t * 4)(*(part.nbytes for part in parts)),
    )
