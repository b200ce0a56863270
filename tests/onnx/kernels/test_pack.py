"""Packed weights come back as they were, in as many bytes as their format says."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kernel_library import problem, sparse_weight

from optimum_si.algorithms.quantization.grids import GRIDS
from optimum_si.onnx.kernels import DTYPES, FORMATS, pack, unpack


#: Largest error of a stored value, of the largest in its scale's group.
ERROR = {"fp32": 0, "fp16": 1e-3, "int8": 1 / 128 + 1e-6, "int4": 1 / 8 + 1e-3}
SHAPES = {"rows": st.integers(1, 40), "columns": st.integers(1, 150), "share": st.floats(0, 1), "seed": st.integers(0)}


@settings(max_examples=150)
@given(format=st.sampled_from(FORMATS), dtype=st.sampled_from(DTYPES), groups=st.integers(0, 6), **SHAPES)
def test_what_was_packed_comes_back(format, dtype, groups, rows, columns, share, seed):
    weight = sparse_weight(np.random.default_rng(seed), rows, columns, format, share)
    group = (0, 32, 64, 128, 192, 320, 500)[groups]
    packed = pack(weight, format, dtype, group)
    back = unpack(packed)
    assert problem(packed) is None and back.shape == weight.shape and back.dtype == np.float32
    assert not back[weight == 0].any()
    assert np.abs(back - weight).max() <= ERROR[dtype] * np.abs(weight).max()


@given(format=st.sampled_from(FORMATS), dtype=st.sampled_from(["int8", "int4"]), **SHAPES)
def test_integers_with_scales_of_their_own_come_back_exactly(format, dtype, rows, columns, share, seed):
    generator = np.random.default_rng(seed)
    weight = np.rint(7 * np.clip(sparse_weight(generator, rows, columns, format, share), -1, 1))
    groups = -(-columns // 32)
    scales = generator.integers(1, 9, (rows, groups)).astype(np.float32) / 8
    expected = weight * np.repeat(scales, 32, axis=1)[:, :columns]
    np.testing.assert_array_equal(unpack(pack(weight, format, dtype, 32, scales)), expected)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_weights_on_the_grid_of_the_dense_exports_are_not_rounded_again(dtype):
    weight = sparse_weight(np.random.default_rng(0), 16, 64, "2:4", 0.1)
    on_grid = GRIDS[dtype].nearest(torch.from_numpy(weight)).numpy()
    # Scales of 4 bits are stored in fp16.
    np.testing.assert_allclose(unpack(pack(on_grid, "2:4", dtype)), on_grid, rtol=1e-6 if dtype == "int8" else 1e-3)


@pytest.mark.parametrize(
    ("format", "dtype", "bits"),
    [
        ("2:4", "fp32", 17),
        ("2:4", "fp16", 9),
        ("2:4", "int8", 5),
        ("2:4", "int4", 3.5),
        ("4:8", "fp16", 9),
        ("bitmask", "fp16", 9),
        ("csr", "fp16", 16),
    ],
)
def test_bits_for_each_weight_at_half_of_them(format, dtype, bits):
    weight = np.tile(np.array([1, 0], np.float32), (256, 512))
    packed = pack(weight, format, dtype)
    assert packed.nbytes * 8 / weight.size == pytest.approx(bits, rel=0.02)


@pytest.mark.parametrize(
    ("weight", "options", "message"),
    [
        (np.ones((4, 8)), ("2:4",), "does not hold 2:4"),
        (np.ones((4, 8)), ("4:8",), "does not hold 4:8"),
        (np.full((4, 8), np.nan), ("bitmask",), "NaN or infinity"),
        (np.eye(4) * 1e6, ("bitmask", "fp16"), "does not fit into fp16"),
        (np.zeros((1, 70_000)), ("csr",), "16-bit columns"),
        (np.eye(64) * 1e6, ("2:4", "int4"), "too large for int4"),
        (np.eye(64) * 20, ("csr", "int4", 32, np.ones((64, 2))), "does not fit into int4"),
        (np.eye(48), ("bitmask", "int8", 40), "neither 32 nor a multiple of 64"),
    ],
)
def test_what_cannot_be_packed_is_named(weight, options, message):
    with pytest.raises(ValueError, match=message):
        pack(weight.astype(np.float32), *options)
