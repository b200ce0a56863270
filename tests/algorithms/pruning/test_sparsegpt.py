"""SparseGPT against a naive elimination of one weight after the other, with the inverse Hessian of what is left."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import correlated_tokens, moments_of, random_scale, random_weight

from optimum_si.algorithms.pruning import get_method
from optimum_si.algorithms.pruning.method import Settings
from optimum_si.algorithms.pruning.methods.sparsegpt import SparseGPT, inverse_factor
from optimum_si.algorithms.pruning.targets import NM, Unstructured
from optimum_si.errors import NumericalError


def damped(moments, damping=0.01):
    gram = moments.gram
    return gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)


def naive(weight, hessian, target, block_size, scale=None):
    """Left to right; a column that goes is repaired by those after it, exactly (optimal brain surgeon)."""
    weight = weight.clone()
    rows, columns = weight.shape
    scale = torch.ones(columns, dtype=weight.dtype) if scale is None else scale
    inverses = [torch.linalg.inv(hessian[column:, column:]) for column in range(columns)]
    gone = torch.zeros_like(weight, dtype=torch.bool)
    for column in range(columns):
        width = block_size if isinstance(target, Unstructured) else target.of
        if column % width == 0:
            ahead = range(column, min(column + width, columns))
            saliency = torch.stack([(weight[:, j] * scale[j]) ** 2 / inverses[j][0, 0] for j in ahead], dim=1)
            if isinstance(target, Unstructured):
                count = round(target.sparsity * rows * ahead.stop) - round(target.sparsity * rows * column)
                lowest = saliency.flatten().argsort(stable=True)[:count]
                chosen = torch.zeros(saliency.numel(), dtype=torch.bool)
                chosen[lowest] = True
                gone[:, ahead.start : ahead.stop] = chosen.reshape(saliency.shape)
            else:
                lowest = saliency.argsort(dim=1, stable=True)[:, : target.of - target.kept]
                gone[:, ahead.start : ahead.stop] = torch.zeros_like(saliency, dtype=torch.bool).scatter(
                    1, lowest, True
                )
        for row in range(rows):
            if gone[row, column]:
                inverse = inverses[column]
                weight[row, column:] -= weight[row, column] / inverse[0, 0] * inverse[0]
                weight[row, column] = 0
    return weight


@pytest.mark.parametrize("block_size", [16, 8, 5])
def test_unstructured_equals_naive_elimination(block_size):
    weight, moments, target = random_weight(), moments_of(correlated_tokens()), Unstructured(0.5)
    pruned = SparseGPT(Settings(block_size=block_size)).prune(weight, moments, target)
    expected = naive(weight, damped(moments), target, block_size)
    assert torch.equal(pruned == 0, expected == 0)
    torch.testing.assert_close(pruned, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("target", [NM(2, 4), NM(1, 4), NM(4, 8)], ids=str)
@pytest.mark.parametrize("block_size", [16, 8])
def test_a_pattern_equals_naive_elimination(target, block_size):
    weight, moments = random_weight(), moments_of(correlated_tokens())
    pruned = SparseGPT(Settings(block_size=block_size)).prune(weight, moments, target)
    expected = naive(weight, damped(moments), target, block_size)
    assert torch.equal(pruned == 0, expected == 0)
    torch.testing.assert_close(pruned, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("target", [Unstructured(0.5), NM(2, 4)], ids=str)
def test_a_learned_scale_weighs_the_score_alone(target):
    weight, moments, scale = random_weight(), moments_of(correlated_tokens()), random_scale(16)
    pruned = SparseGPT().prune(weight, moments, target, scale=scale)
    torch.testing.assert_close(pruned, naive(weight, damped(moments), target, 128, scale), rtol=1e-3, atol=1e-4)
    assert not torch.equal(pruned == 0, SparseGPT().prune(weight, moments, target) == 0)


def test_repairing_loses_less_than_masking():
    weight, moments = random_weight(), moments_of(correlated_tokens())

    def loss(method):
        error = weight - get_method(method)().prune(weight, moments, NM(2, 4))
        return float(torch.trace(error @ moments.gram @ error.T))

    assert loss("sparsegpt") < loss("wanda")


@given(st.integers(1, 8), st.integers(1, 20), st.floats(0, 0.99), st.integers(1, 7))
def test_the_number_of_zeros_is_exact(rows, columns, sparsity, block_size):
    moments = moments_of(correlated_tokens(64, columns))
    pruned = SparseGPT(Settings(block_size=block_size)).prune(
        random_weight(rows, columns), moments, Unstructured(sparsity)
    )
    assert int((pruned == 0).sum()) == round(sparsity * (rows * columns))


@pytest.mark.parametrize("target", [Unstructured(0.5), NM(2, 4)], ids=str)
def test_zeros_stay_and_count(target):
    weight = random_weight()
    weight[:, 1::4] = 0
    pruned = SparseGPT().prune(weight, moments_of(correlated_tokens()), target)
    assert not pruned[weight == 0].any() and int((pruned == 0).sum()) == 64


@pytest.mark.parametrize("target", [Unstructured(0.25), NM(3, 4)], ids=str)
def test_weights_of_dead_inputs_go_first(target):
    tokens = correlated_tokens()
    tokens[:, ::4] = 0
    pruned = SparseGPT().prune(random_weight(), moments_of(tokens), target)
    assert not pruned[:, ::4].any() and int((pruned == 0).sum()) == 32


def test_no_sparsity_changes_no_bit():
    weight = random_weight()
    assert torch.equal(SparseGPT().prune(weight, moments_of(correlated_tokens()), Unstructured(0.0)), weight)


@pytest.mark.parametrize("mode", ["mean", "channel"])
def test_the_factor_gives_the_inverse(mode):
    gram = moments_of(correlated_tokens()).gram
    upper = inverse_factor(gram, 0.1, mode).double()
    added = gram.diagonal().mean().expand(16) if mode == "mean" else gram.diagonal()
    expected = torch.linalg.inv(gram + 0.1 * torch.diag(added))
    torch.testing.assert_close(upper.T @ upper, expected, rtol=1e-3, atol=1e-5)
    assert not upper.tril(-1).any()


def test_fewer_tokens_than_inputs_are_no_failure_with_damping():
    moments = moments_of(correlated_tokens(4, 16))
    pruned = SparseGPT().prune(random_weight(), moments, Unstructured(0.5))
    assert torch.isfinite(pruned).all()


def test_a_matrix_that_cannot_be_factorized_names_the_fix():
    with pytest.raises(NumericalError, match="16 columns.*damping=1: use more calibration data, a larger damping"):
        inverse_factor(-torch.eye(16, dtype=torch.float64), 0.01, "mean")
    with pytest.raises(NumericalError, match="larger damping"):
        SparseGPT(Settings(damping=0.0)).prune(
            random_weight(), moments_of(torch.ones(4, 16, dtype=torch.float64)), Unstructured(0.5)
        )
