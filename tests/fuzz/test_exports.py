"""Manifests and graphs that somebody else wrote: opened, or a CheckpointError, never a traceback."""

import json

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from support.fuzzing import fuzzed

from optimum_si import CheckpointError
from optimum_si.onnx.external_data import check_external_data
from optimum_si.onnx.inspect import check
from optimum_si.onnx.manifest import MANIFEST, check_files


NAMES = [
    "model.onnx",
    "model.onnx.data",
    "model.onnx/../../x",
    "../secret",
    "/etc/passwd",
    "model.onnx\0",
    "model.onnx ",
    "",
]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ENTRIES = st.dictionaries(st.sampled_from(["bytes", "crc32", "x"]), SCALARS, max_size=3) | SCALARS
RECORDS = st.one_of(
    st.binary(max_size=60),
    st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), ENTRIES, max_size=4).map(
        lambda files: json.dumps({"files": files}).encode()
    ),
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("files"), inner), max_leaves=5
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"[" * 100_000, b'{"files": ' * 30_000, b"9" * 5000]),
)


def graph(folder, location="model.onnx.data", offset=0, length=64, shape=(4, 4)):
    """A product with a weight in another file."""
    (folder / "model.onnx.data").write_bytes(np.arange(16, dtype=np.float32).tobytes())
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        weight.external_data.add(key=key, value=str(value))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    made = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]), folder / "model.onnx")
    return folder / "model.onnx"


@fuzzed
@given(RECORDS)
def test_a_record_is_read_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("export")
    path = graph(folder)
    (folder / MANIFEST).write_bytes(content)
    try:
        check_files(path, verify=True)
    except CheckpointError as error:
        assert str(error)


@fuzzed
@given(
    st.sampled_from(
        ["model.onnx.data", "../model.onnx.data", "/etc/passwd", "a/b", "..", ".", "", "missing", "x" * 300]
    ),
    st.sampled_from([0, 16, 63, 64, 2**62, -1, "x", ""]),
    st.sampled_from([64, 48, 0, 1, 2**62, -5, "1e3"]),
    st.sampled_from([(4, 4), (2, 4), (0, 4), (2**40, 2**40), (-1, 4)]),
)
def test_weights_elsewhere_and_beyond_are_refused(tmp_path_factory, location, offset, length, shape):
    folder = tmp_path_factory.mktemp("export")
    path = graph(folder, location, offset, length, shape)
    try:
        check_external_data(path)
        check(folder)
    except CheckpointError as error:
        assert str(error)
        return
    assert location == "model.onnx.data" and shape in ((4, 4), (2, 4), (0, 4))


@fuzzed
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_graph_is_refused_or_read(tmp_path_factory, changes):
    folder = tmp_path_factory.mktemp("export")
    path = graph(folder)
    content = bytearray(path.read_bytes())
    for place, byte in changes:
        content[place % len(content)] = byte
    path.write_bytes(content)
    try:
        check(folder)
    except CheckpointError as error:
        assert str(error)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_weights_that_are_no_file_are_not_waited_for(tmp_path, kind):
    import os

    path = graph(tmp_path)
    (tmp_path / "model.onnx.data").unlink()
    if kind == "pipe":
        os.mkfifo(tmp_path / "model.onnx.data")
    elif kind == "folder":
        (tmp_path / "model.onnx.data").mkdir()
    else:
        (tmp_path / "model.onnx.data").symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="no regular file"):
        check_external_data(path)
