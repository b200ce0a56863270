"""Packed weights that were changed in any way: refused, or multiplied by as what they say, and never a crash."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import fuzzed
from support.kernel_library import AVX2, PORTABLE, multiply, problem, sparse_weight

from optimum_si.onnx.kernels import DTYPES, FORMATS, Packed, pack, unpack
from optimum_si.onnx.kernels.validate import check


PARTS = ("values", "indices", "starts", "scales")
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("byte"), st.sampled_from(PARTS), st.integers(0, 10**6), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.sampled_from(PARTS), st.integers(1, 80), st.just(0)),
        st.tuples(st.just("more"), st.sampled_from(PARTS), st.integers(1, 80), st.integers(0, 255)),
        st.tuples(st.just("shape"), st.just("0"), st.integers(-2, 70_000), st.integers(-2, 70_000)),
        st.tuples(st.just("group"), st.just("0"), st.integers(-1, 2**33), st.just(0)),
        st.tuples(st.just("format"), st.sampled_from(FORMATS), st.just(0), st.just(0)),
        st.tuples(st.just("dtype"), st.sampled_from(DTYPES), st.just(0), st.just(0)),
    ),
    min_size=1,
    max_size=3,
)


def changed(packed, changes):
    format, dtype, shape, group = packed.format, packed.dtype, packed.shape, packed.group
    parts = {name: part.copy() for name, part in packed.parts.items()}
    for kind, name, number, value in changes:
        if kind == "byte" and len(parts[name]):
            parts[name][number % len(parts[name])] = value
        elif kind == "cut":
            parts[name] = parts[name][: max(len(parts[name]) - number, 0)].copy()
        elif kind == "more":
            parts[name] = np.append(parts[name], np.full(number, value, np.uint8))
        elif kind == "shape":
            shape = number, value
        elif kind == "group":
            group = number
        elif kind == "format":
            format = name
        elif kind == "dtype":
            dtype = name
    return Packed(format, dtype, shape, group, parts)


@fuzzed
@given(
    st.sampled_from(FORMATS),
    st.sampled_from(DTYPES),
    st.integers(1, 20),
    st.integers(1, 140),
    CHANGES,
    st.integers(0, 2**32 - 1),
)
def test_a_changed_weight_is_refused_or_multiplied_by(format, dtype, rows, columns, changes, seed):
    generator = np.random.default_rng(seed)
    sound = pack(sparse_weight(generator, rows, columns, format, 0.5), format, dtype)
    packed = changed(sound, changes)
    try:
        check(packed)
    except ValueError as error:
        assert str(error) and problem(packed) is not None
        return
    assert problem(packed) is None
    x = generator.standard_normal((3, packed.shape[1])).astype(np.float32)
    dense = unpack(packed)
    with np.errstate(all="ignore"):
        expected = x.astype(np.float64) @ dense.astype(np.float64).T
        bound = np.abs(x).astype(np.float64) @ np.abs(dense).astype(np.float64).T
    # Integer kernels round x as well.
    share = 1e-4 if packed.dtype.startswith("fp") else 2e-2
    for isa in (PORTABLE, AVX2):
        product = multiply(packed, x, isa=isa)
        if product is not None and np.isfinite(bound).all() and bound.max(initial=0) < 1e30:
            np.testing.assert_allclose(product, expected, rtol=0, atol=share * max(bound.max(initial=0), 1e-30))
