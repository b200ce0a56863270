"""The straight-through mask is hard, is the mask, and has a gradient that can move it."""

import pytest
import torch

from optimum_si.algorithms.induction.masking import log_score, straight_through_mask
from optimum_si.algorithms.pruning.targets import NM, Unstructured


TARGETS = [Unstructured(0.5), Unstructured(0.6, "layer"), Unstructured(0.0), NM(2, 4), NM(1, 4)]


def scores(zeros=False):
    score = torch.rand(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.01
    if zeros:
        score[:, ::4] = 0
    return score


def probe():
    return torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_it_is_hard_and_equals_what_the_target_keeps(target, zeros):
    mask = straight_through_mask(log_score(scores(zeros)), target, 0.05)
    assert torch.equal(mask, target.keep(scores(zeros)).double())


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_gradient_is_finite_with_exact_zeros(target):
    theta = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    mask = straight_through_mask(log_score(scores(zeros=True)) + theta, target, 0.05)
    (mask * probe()).sum().backward()
    assert torch.isfinite(theta.grad).all()


@pytest.mark.parametrize("target", [TARGETS[0], TARGETS[1], TARGETS[3], TARGETS[4]], ids=str)
def test_a_factor_that_a_whole_group_shares_has_no_gradient_and_others_have(target):
    groups = target.groups(scores()).shape[0]
    common = torch.zeros(groups, 1, dtype=torch.float64, requires_grad=True)
    single = torch.zeros(8, 16, dtype=torch.float64, requires_grad=True)
    log = target.groups(log_score(scores()) + single) + common
    mask = straight_through_mask(log.reshape(8, 16), target, 0.05)
    (mask * probe()).sum().backward()
    assert common.grad.abs().max() < 1e-9 < 1e-3 < single.grad.abs().max()


@pytest.mark.parametrize("target", [Unstructured(0.5), Unstructured(0.6, "layer"), NM(2, 4), NM(1, 4)], ids=str)
def test_the_gradient_is_that_of_the_sigmoid_around_the_moving_threshold(target):
    log = log_score(scores()).requires_grad_()
    groups = target.groups(log)
    ranked = groups.sort(dim=1).values
    pruned = round(target.sparsity * groups.shape[1])
    threshold = (ranked[:, pruned - 1] + ranked[:, pruned]) / 2
    soft = torch.sigmoid((groups - threshold[:, None]) / 0.05).reshape(8, 16)
    (expected,) = torch.autograd.grad((soft * probe()).sum(), log)
    (found,) = torch.autograd.grad((straight_through_mask(log, target, 0.05) * probe()).sum(), log)
    torch.testing.assert_close(found, expected)


def test_a_wider_sigmoid_reaches_more_scores():
    def reached(temperature):
        log = log_score(scores()).requires_grad_()
        (straight_through_mask(log, Unstructured(0.5), temperature) * probe()).sum().backward()
        return int((log.grad.abs() > 1e-6).sum())

    assert reached(0.01) < reached(0.1) <= reached(1.0)
