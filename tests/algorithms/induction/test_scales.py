"""Initial scales, their normalization and their rounding."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import correlated_tokens, moments_of, random_scale

from optimum_si.algorithms.induction.scales import activation_scale, normalized_log, power_of_two, robust_scale


def test_the_robust_scale_is_equation_five():
    tokens = correlated_tokens(255)
    expected = (tokens.median(dim=0).values - tokens.mean(dim=0).mean()).square()
    torch.testing.assert_close(robust_scale(tokens, moments_of(tokens)), expected)


def test_the_activation_scale_is_the_root_of_the_root_mean_square():
    tokens = correlated_tokens()
    expected = tokens.square().mean(dim=0).sqrt().sqrt()
    torch.testing.assert_close(activation_scale(moments_of(tokens, gram=False)), expected)


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=12), st.floats(1.01, 16))
def test_no_scale_leaves_its_bounds(values, bound):
    log = normalized_log(torch.tensor(values, dtype=torch.float64), None, len(values), bound)
    assert torch.isfinite(log).all() and log.abs().max() <= math.log(bound) + 1e-9


def test_mild_scales_keep_their_ratios_at_geometric_mean_one():
    scale = random_scale(12).clamp(0.7, 1.4)
    log = normalized_log(scale, None, 12, 4.0)
    torch.testing.assert_close(log, scale.log() - scale.log().mean())


def test_a_dead_channel_and_a_huge_one_end_at_the_bounds():
    log = normalized_log(torch.tensor([0.0, 1.0, 1.0, 1.0, 1e9], dtype=torch.float64), None, 5, 4.0)
    torch.testing.assert_close(log.exp(), torch.tensor([0.25, 1, 1, 1, 4], dtype=torch.float64))


def test_channels_that_share_an_entry_are_averaged_in_log():
    scale = torch.tensor([1.0, 4.0, 2.0, 2.0], dtype=torch.float64)
    log = normalized_log(scale, torch.tensor([0, 0, 1, 1]), 2, 100.0)
    torch.testing.assert_close(log, torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("base", [2, 4])
def test_rounding_gives_the_nearest_power_in_log(base):
    scale = random_scale(64)
    rounded = power_of_two(scale, base)
    exponent = rounded.log2() / math.log2(base)
    assert torch.equal(exponent, exponent.round())
    assert ((scale / rounded).log2().abs() <= math.log2(base) / 2 + 1e-12).all()
