"""Kernels read and write nothing outside of their buffers, with damaged weights as with sound ones."""

import subprocess

import numpy as np
import pytest
from support.kernel_library import compiled, sparse_weight

from optimum_si.onnx.kernels import DTYPES, FORMATS, pack
from optimum_si.onnx.kernels import build as building


FLAGS = (
    "-O0",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-I",
    str(building.SOURCE),
)


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory, request):
    command = building.compiler()
    if command is None:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("fuzzer")
    sources = [file for file in building.sources_here() if file.name != "op.cpp"]
    objects = compiled([*sources, request.path.with_name("fuzz.cpp")], folder, FLAGS)
    program = folder / "fuzz"
    subprocess.run([*command, "-fsanitize=address,undefined", *objects, "-o", str(program)], check=True)
    return program


def test_no_read_outside_of_a_buffer(fuzzer, tmp_path):
    generator = np.random.default_rng(0)
    for format in FORMATS:
        for dtype in DTYPES:
            for rows, columns in ((1, 1), (13, 37), (24, 64), (70, 72)):
                packed = pack(sparse_weight(generator, rows, columns, format, 0.4), format, dtype)
                parts = [packed.parts[name] for name in ("values", "indices", "starts", "scales")]
                head = [FORMATS.index(format), DTYPES.index(dtype), rows, columns, packed.group]
                numbers = np.array([*head, *(part.nbytes for part in parts)], np.int64)
                name = f"{format.replace(':', 'of')}-{dtype}-{rows}x{columns}"
                (tmp_path / name).write_bytes(numbers.tobytes() + b"".join(part.tobytes() for part in parts))
    files = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([str(fuzzer), "1", "2500", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    multiplied, refused = (int(word) for word in done.stdout.split() if word.isdigit())
    assert multiplied > 500 and refused > 500
