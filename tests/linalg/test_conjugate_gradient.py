"""Masked conjugate gradients solve each system in its mask, and stop where little is left to gain."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import correlated_tokens

from optimum_si.linalg.conjugate_gradient import conjugate_gradient


def problem(seed, systems=7, size=12):
    """A x = b for many b, along the last axis, with a mask for each."""
    generator = torch.Generator().manual_seed(seed)
    tokens = correlated_tokens(64, size, seed)
    matrix = tokens.T @ tokens / 64 + 0.1 * torch.eye(size, dtype=torch.float64)
    right = torch.randn(systems, size, generator=generator, dtype=torch.float64)
    mask = (torch.rand(systems, size, generator=generator) > 0.4).double()
    return matrix, right, mask


def direct(matrix, right, mask):
    solution = torch.zeros_like(right)
    for row, kept in enumerate(mask.bool()):
        solution[row, kept] = torch.linalg.solve(matrix[kept][:, kept], right[row, kept])
    return solution


def solved(matrix, right, mask, start=None, dim=1, **options):
    """The solution and how many products it took; systems lie along ``dim``."""
    products = []

    def product(direction):
        products.append(direction)
        return direction @ matrix if dim == 1 else matrix @ direction

    start = torch.zeros_like(right) if start is None else start * mask
    image = start @ matrix if dim == 1 else matrix @ start
    found = conjugate_gradient(product, mask, start.clone(), (right - image) * mask, dim, **options)
    return found, len(products)


def objective(matrix, right, solution):
    return float(((solution @ matrix - 2 * right) * solution).sum())


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), started=st.booleans())
def test_each_system_is_solved_in_its_mask(seed, started):
    matrix, right, mask = problem(seed)
    start = torch.randn(right.shape, generator=torch.Generator().manual_seed(seed)).double() if started else None
    expected = direct(matrix, right, mask)
    found, _ = solved(matrix, right, mask, start, iterations=200)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert not found[mask == 0].any()
    across, _ = solved(matrix, right.T, mask.T, None if start is None else start.T, dim=0, iterations=200)
    torch.testing.assert_close(across, expected.T, rtol=1e-7, atol=1e-9)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_a_gain_stops_sooner_with_little_left(seed):
    matrix, right, mask = problem(seed)
    best = objective(matrix, right, direct(matrix, right, mask))
    found = {gain: solved(matrix, right, mask, iterations=200, gain=gain) for gain in (0.0, 1e-4, 1e-2, 0.5)}
    left = [objective(matrix, right, solution) / best for solution, _ in found.values()]
    steps = [count for _, count in found.values()]
    assert steps == sorted(steps, reverse=True) and steps[0] == 200 > steps[1] >= steps[2] > steps[3] >= 2
    # Of what all steps gain, those that are left out would have brought some.
    assert left == pytest.approx(sorted(left, reverse=True), rel=1e-9)
    assert left[0] == pytest.approx(1, rel=1e-9) and left[1] > 0.99 and left[2] > 0.9


def test_steps_are_counted():
    matrix, right, mask = problem(0)
    for iterations in (0, 1, 5):
        found, count = solved(matrix, right, mask, iterations=iterations)
        assert count == iterations and bool(found.any()) == (iterations > 0)


@pytest.mark.parametrize("gain", [0.0, 1e-2])
def test_what_is_solved_stays(gain):
    matrix, right, mask = problem(3)
    expected = direct(matrix, right, mask)
    found, _ = solved(matrix, right, mask, expected, iterations=30, gain=gain)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    nothing, count = solved(matrix, 0 * right, mask, iterations=30, gain=gain)
    assert not nothing.any() and count == 1  # there is nothing to gain
