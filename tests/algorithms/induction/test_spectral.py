"""Schatten norms against singular values, and the Spectral Norm Loss."""

import math

import pytest
import torch
from support.models import random_scale, random_weight

from optimum_si.algorithms.induction.spectral import SpectralNormLoss, schatten_norm


EXPECTED = {1: lambda values: values.sum(), 2: lambda values: values.norm(), "inf": lambda values: values[0]}


def layers():
    return [random_weight(6, 9, seed) for seed in range(3)]


def converged(loss, weights):
    """The total once the warm-started vectors have converged."""
    for _ in range(300):
        total = loss.total(weights)
    return total


@pytest.mark.parametrize("p", EXPECTED)
def test_norms_equal_those_of_the_singular_values(p):
    weights = layers()
    loss = SpectralNormLoss(weights, p, None, normalized=False)
    expected = sum(EXPECTED[p](torch.linalg.svdvals(weight)) for weight in weights)
    torch.testing.assert_close(converged(loss, weights), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("p", EXPECTED)
def test_the_gradient_equals_that_of_the_exact_norm(p):
    scale = random_scale(9).requires_grad_()
    weights = layers()
    loss = SpectralNormLoss(weights, p, None, normalized=False)
    converged(loss, [(weight * scale).detach() for weight in weights])
    loss.total([weight * scale for weight in weights]).backward()
    exact = random_scale(9).requires_grad_()
    sum(EXPECTED[p](torch.linalg.svdvals(weight * exact)) for weight in weights).backward()
    torch.testing.assert_close(scale.grad, exact.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("p", EXPECTED)
def test_it_starts_at_one_over_e_by_default(p, normalized):
    weights = layers()
    assert float(SpectralNormLoss(weights, p, None, normalized)(weights)) == pytest.approx(1 / math.e, rel=1e-3)


@pytest.mark.parametrize("p", EXPECTED)
def test_it_falls_as_norms_grow_unless_normalized(p):
    weights, doubled = layers(), [2 * weight for weight in layers()]
    loss = SpectralNormLoss(weights, p, None, normalized=False)
    assert float(loss(doubled)) == pytest.approx(math.exp(-2), rel=1e-3)
    loss = SpectralNormLoss(weights, p, None, normalized=True)
    assert float(loss(doubled)) == pytest.approx(1 / math.e, rel=1e-3)


def test_a_given_alpha_is_used():
    weights = layers()
    loss = SpectralNormLoss(weights, 2, 0.01, normalized=False)
    torch.testing.assert_close(loss(weights), torch.exp(-0.01 * sum(weight.norm() for weight in weights)))


@pytest.mark.parametrize("p", EXPECTED)
def test_a_layer_of_zeros_gives_no_nan(p):
    weights = [torch.zeros(6, 9, dtype=torch.float64), *layers()]
    for normalized in (False, True):
        assert torch.isfinite(SpectralNormLoss(weights, p, None, normalized)(weights)), normalized


def test_one_power_iteration_updates_the_estimate():
    matrix, vector = random_weight(6, 9), torch.ones(9, dtype=torch.float64)
    first = schatten_norm(matrix, "inf", vector)
    assert float(first) < float(schatten_norm(matrix, "inf", vector)) <= float(torch.linalg.svdvals(matrix)[0]) + 1e-9
