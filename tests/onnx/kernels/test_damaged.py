"""Packed parts that do not fit together are found before anything is read from them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kernel_library import multiply, problem, sparse_weight

from optimum_si.onnx.kernels import DTYPES, FORMATS, pack
from optimum_si.onnx.kernels.validate import check


def packed(format, dtype="fp32", rows=12, columns=40):
    return pack(sparse_weight(np.random.default_rng(0), rows, columns, format, 0.2), format, dtype)


def with_part(weight, name, part):
    return replace(weight, parts={**weight.parts, name: np.ascontiguousarray(part)})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["values", "indices", "starts", "scales"])
@pytest.mark.slow
def test_a_part_of_another_size_is_refused(format, dtype, name):
    weight = packed(format, dtype)
    part = weight.parts[name]
    for wrong in (np.append(part, np.zeros(4, np.uint8)), part[:-4]):
        if len(wrong) != len(part):
            assert problem(with_part(weight, name, wrong)) is not None


@pytest.mark.parametrize("format", FORMATS)
def test_a_group_that_overflows_is_refused(format):
    weight = replace(packed(format, "int8", columns=64), group=2**63 - 1)
    assert problem(with_part(weight, "scales", np.zeros(0, np.uint8))) is not None


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(12, 8), (20, 40), (0, 40), (12, -1), (2**40, 2**40)])
def test_another_shape_is_refused(format, shape):
    assert problem(replace(packed(format), shape=shape)) is not None


@pytest.mark.parametrize(
    ("format", "dtype", "index"),
    [
        ("2:4", "fp32", 72),
        ("2:4", "fp16", 1),
        ("2:4", "int8", 0),
        ("2:4", "int4", 0),
        ("4:8", "int8", 140),
        ("4:8", "fp32", 3),
    ],
)
def test_a_pattern_that_does_not_hold_is_refused(format, dtype, index):
    weight = packed(format, dtype)
    indices = weight.parts["indices"].copy()
    indices[:4] = index
    assert "the pattern does not hold" in problem(with_part(weight, "indices", indices))


def test_columns_out_of_range_are_refused():
    weight = packed("csr")
    indices = weight.parts["indices"].copy()
    indices[:2] = 255
    assert "out of range" in problem(with_part(weight, "indices", indices))
    indices = weight.parts["indices"].copy()
    indices[2:4] = indices[:2]
    assert "not ascending" in problem(with_part(weight, "indices", indices))


@pytest.mark.parametrize("format", ["bitmask", "csr"])
def test_starts_that_fall_or_reach_too_far_are_refused(format):
    weight = packed(format)
    for place, value in ((0, 1), (1, 10**6), (-1, 2**32 - 1), (-1, 0)):
        starts = weight.parts["starts"].view(np.uint32).copy()
        starts[place] = value
        assert problem(with_part(weight, "starts", starts.view(np.uint8))) is not None


def test_a_mask_outside_of_the_weight_is_refused():
    weight = packed("bitmask", rows=3, columns=12)
    for place in (3, 4):  # of a row, and of a column, that is only there to fill up
        indices = weight.parts["indices"].copy()
        indices[place] |= 0x80
        assert "lacks" in problem(with_part(weight, "indices", indices))


@settings(max_examples=200)
@given(
    format=st.sampled_from(FORMATS),
    dtype=st.sampled_from(DTYPES),
    name=st.sampled_from(["values", "indices", "starts", "scales"]),
    place=st.integers(0),
    byte=st.integers(0, 255),
)
def test_a_changed_byte_is_refused_or_multiplied_by(format, dtype, name, place, byte):
    weight = packed(format, dtype)
    part = weight.parts[name].copy()
    if len(part):
        part[place % len(part)] = byte
    weight = with_part(weight, name, part)
    # What judges without the library agrees with it.
    if problem(weight) is None:
        check(weight)
        assert multiply(weight, np.ones((1, 40))).shape == (1, 12)
    else:
        with pytest.raises(ValueError):
            check(weight)
