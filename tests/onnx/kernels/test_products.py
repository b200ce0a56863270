"""Kernels give the product with the unpacked weight, whatever the shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kernel_library import ISAS, PORTABLE, multiply, sparse_weight

from optimum_si.onnx.kernels import DTYPES, FORMATS, pack, unpack


#: Of the sum of magnitudes.
BOUND = 1e-5


def error(packed, x, isa):
    """The largest error of each output without a bias: rounding, and 2:4 in integers takes x in 8 bits.

    Of each 32 inputs the largest is 127 steps, and an input is half a step off at most.
    """
    off = BOUND * np.abs(x)
    if isa != PORTABLE and packed.format == "2:4" and packed.dtype.startswith("int"):
        units = np.pad(np.abs(x), ((0, 0), (0, -x.shape[1] % 32))).reshape(len(x), -1, 32)
        off += np.repeat(units.max(axis=2), 32, axis=1)[:, : x.shape[1]] / 254
    return off @ np.abs(unpack(packed)).T


@settings(max_examples=120)
@given(
    format=st.sampled_from(FORMATS),
    dtype=st.sampled_from(DTYPES),
    isa=st.sampled_from(ISAS),
    rows=st.integers(1, 150),
    columns=st.integers(1, 200) | st.integers(500, 700),
    count=st.integers(1, 20) | st.integers(60, 80),
    share=st.floats(0, 1),
    biased=st.booleans(),
    seed=st.integers(0),
)
def test_products_are_those_of_the_dense_weight(format, dtype, isa, rows, columns, count, share, biased, seed):
    generator = np.random.default_rng(seed)
    packed = pack(sparse_weight(generator, rows, columns, format, share), format, dtype)
    x = generator.standard_normal((count, columns)).astype(np.float32)
    bias = generator.standard_normal(rows).astype(np.float32) if biased else None
    result = multiply(packed, x, bias, isa)
    if result is None:
        return
    dense = unpack(packed).astype(np.float64)
    expected = x @ dense.T + (0 if bias is None else bias)
    # Rounding grows with what is summed, which may cancel.
    allowed = error(packed, x, isa) + BOUND * (0 if bias is None else np.abs(bias)) + 1e-30
    assert (np.abs(result - expected) <= allowed).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("count", [1, 3, 14])
@pytest.mark.parametrize("group", [32, 192])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("format", FORMATS)
def test_scales_of_groups_of_columns(format, dtype, group, count, isa):
    generator = np.random.default_rng(0)
    packed = pack(sparse_weight(generator, 20, 300, format, 0.2), format, dtype, group)
    x = generator.standard_normal((count, 300)).astype(np.float32)
    result = multiply(packed, x, isa=isa)
    if result is not None:
        assert (np.abs(result - x @ unpack(packed).T.astype(np.float64)) <= error(packed, x, isa)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_spreads_as_in_the_dense_product(format, dtype, isa, wrong):
    generator = np.random.default_rng(0)
    packed = pack(sparse_weight(generator, 12, 40, format, 0.3), format, dtype)
    x = generator.standard_normal((2, 40)).astype(np.float32)
    x[0, 5] = wrong
    with np.errstate(invalid="ignore"):
        expected = x @ unpack(packed).T
    result = multiply(packed, x, None, isa)
    if result is not None:
        np.testing.assert_array_equal(np.isfinite(result), np.isfinite(expected))
        np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))


@pytest.mark.parametrize("format", FORMATS)
def test_subnormal_numbers_are_numbers(format):
    packed = pack(sparse_weight(np.random.default_rng(0), 8, 32, format, 0.3), format)
    x = np.full((1, 32), 1e-40, np.float32)
    np.testing.assert_allclose(multiply(packed, x), x @ unpack(packed).T, rtol=1e-3, atol=1e-43)


@pytest.mark.parametrize("format", FORMATS)
def test_long_prompts_are_computed_in_parts(format):
    generator = np.random.default_rng(0)
    packed = pack(sparse_weight(generator, 12, 40, format, 0.3), format)
    x = generator.standard_normal((1100, 40)).astype(np.float32)
    np.testing.assert_allclose(multiply(packed, x), x @ unpack(packed).T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format", FORMATS)
def test_each_row_of_x_is_computed_for_itself(format, dtype):
    generator = np.random.default_rng(3)
    packed = pack(sparse_weight(generator, 30, 96, format, 0.4), format, dtype)
    x = generator.standard_normal((13, 96)).astype(np.float32)
    together = multiply(packed, x)
    for row in range(len(x)):
        np.testing.assert_allclose(multiply(packed, x[row : row + 1])[0], together[row], rtol=1e-4, atol=1e-5)
