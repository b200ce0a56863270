"""What scaling can and cannot change: the table of design 1.3, with powers of two so that no rounding decides."""

import pytest
import torch
from support.models import correlated_tokens, moments_of, random_scale, random_weight

from optimum_si.algorithms.induction.scales import power_of_two
from optimum_si.algorithms.pruning import get_method
from optimum_si.algorithms.pruning.method import Settings
from optimum_si.algorithms.pruning.targets import NM, Unstructured


ROWS, PATTERN, LAYER = Unstructured(0.5), NM(2, 4), Unstructured(0.5, "layer")
SCALE, ROW_SCALE = power_of_two(random_scale(16)), power_of_two(random_scale(8))


def kept(method, target, settings=None, columns=None, rows=None, shift=False):
    """The mask of one layer after a scale of its inputs, of its outputs, or with centered moments."""
    weight, tokens = random_weight(), correlated_tokens() + torch.linspace(0, 12, 16, dtype=torch.float64)
    if columns is not None:
        weight, tokens = weight * columns, tokens / columns
    if rows is not None:
        weight = weight * rows[:, None]
    moments = moments_of(tokens)
    if shift:
        moments = moments.transformed(shift=moments.mean)
    return get_method(method)(settings).prune(weight, moments, target) != 0


@pytest.mark.parametrize("target", [ROWS, PATTERN, LAYER], ids=str)
def test_input_scaling_never_moves_a_wanda_mask(target):
    assert torch.equal(kept("wanda", target), kept("wanda", target, columns=SCALE))


@pytest.mark.parametrize("target", [ROWS, PATTERN], ids=str)
@pytest.mark.parametrize("settings", [Settings(damping=0.0), Settings(damping_mode="channel")], ids=str)
def test_input_scaling_never_moves_a_sparsegpt_mask_without_mean_damping(target, settings):
    assert torch.equal(kept("sparsegpt", target, settings), kept("sparsegpt", target, settings, columns=SCALE))


@pytest.mark.parametrize("target", [ROWS, PATTERN], ids=str)
def test_mean_damping_lets_input_scaling_move_a_sparsegpt_mask(target):
    settings = Settings(damping=0.05)
    assert not torch.equal(kept("sparsegpt", target, settings), kept("sparsegpt", target, settings, columns=SCALE))


@pytest.mark.parametrize("target", [ROWS, PATTERN, LAYER], ids=str)
def test_input_scaling_moves_a_magnitude_mask(target):
    assert not torch.equal(kept("magnitude", target), kept("magnitude", target, columns=SCALE))


@pytest.mark.parametrize("target", [ROWS, PATTERN], ids=str)
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_output_scaling_never_moves_a_mask_of_rows_or_groups(method, target):
    assert torch.equal(kept(method, target), kept(method, target, rows=ROW_SCALE))


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_output_scaling_moves_a_mask_whose_threshold_rows_share(method):
    assert not torch.equal(kept(method, LAYER), kept(method, LAYER, rows=ROW_SCALE))


def test_output_scaling_moves_unstructured_sparsegpt_but_no_pattern():
    assert not torch.equal(kept("sparsegpt", ROWS), kept("sparsegpt", ROWS, rows=ROW_SCALE))
    assert torch.equal(kept("sparsegpt", PATTERN), kept("sparsegpt", PATTERN, rows=ROW_SCALE))


@pytest.mark.parametrize("target", [ROWS, PATTERN], ids=str)
def test_centering_moves_wanda_and_sparsegpt_but_not_magnitude(target):
    for method in ("wanda", "sparsegpt"):
        assert not torch.equal(kept(method, target), kept(method, target, shift=True))
    assert torch.equal(kept("magnitude", target), kept("magnitude", target, shift=True))


@pytest.mark.parametrize("method", ["magnitude", "wanda"])
@pytest.mark.parametrize("target", [ROWS, PATTERN], ids=str)
def test_a_learned_scale_weighs_the_score_and_leaves_the_weight(method, target):
    weight, moments = random_weight(), moments_of(correlated_tokens())
    found = get_method(method)().prune(weight, moments, target, scale=SCALE)
    score = weight.abs() * SCALE * (moments.diagonal.sqrt() if method == "wanda" else 1)
    assert torch.equal(found, weight * target.keep(score))


def test_a_row_scale_weighs_magnitude_rows():
    weight, moments = random_weight(), moments_of(correlated_tokens())
    found = get_method("magnitude")().prune(weight, moments, LAYER, row_scale=ROW_SCALE)
    assert torch.equal(found, weight * LAYER.keep(weight.abs() * ROW_SCALE[:, None]))


@pytest.mark.parametrize("target", [ROWS, PATTERN, LAYER], ids=str)
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_zeros_stay_and_count(method, target):
    weight = random_weight()
    weight[:, ::4] = 0
    pruned = get_method(method)().prune(weight, moments_of(correlated_tokens()), target)
    assert not pruned[weight == 0].any() and int((pruned == 0).sum()) == 64
