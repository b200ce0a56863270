"""The divergence over the vocabulary in chunks, and its gradient, are those of the plain formula."""

import pytest
import torch
from torch.nn.functional import linear

from optimum_si.algorithms.whole_model.divergence import (
    Head,
    error_probe,
    head_divergence,
    head_probe,
    logit_divergence,
    logit_probe,
    relative_error,
)


def random(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def plain(student, teacher, head, dense_head):
    def logits(hidden, head):
        values = head.factor * linear(hidden, head.weight, head.bias)
        return values if head.cap is None else head.cap * torch.tanh(values / head.cap)

    expected = logits(teacher, dense_head).log_softmax(-1)
    return (expected.exp() * (expected - logits(student, head).log_softmax(-1))).sum()


@pytest.mark.parametrize("chunk", [None, 1, 3, 7])
@pytest.mark.parametrize("settings", [{}, {"factor": 0.3}, {"cap": 2.0}, {"factor": 1.7, "cap": 1.5}], ids=str)
@pytest.mark.parametrize("other_head", [False, True])
def test_chunks_give_the_plain_divergence_and_its_gradient(chunk, settings, other_head):
    head = Head(random(11, 5, seed=0), random(11, seed=1), **settings)
    dense_head = Head(random(11, 5, seed=2), None, **settings) if other_head else None
    student, teacher = random(7, 5, seed=3), random(7, 5, seed=4)
    results = []
    for loss in (
        lambda values: 3 * head_divergence(values, teacher, head, dense_head, chunk),
        lambda values: 3 * plain(values, teacher, head, dense_head or head),
    ):
        values = student.clone().requires_grad_()
        value = loss(values)
        results.append((value.detach(), *torch.autograd.grad(value, values)))
    (value, gradient), (expected, expected_gradient) = results
    torch.testing.assert_close(value, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-10, rtol=1e-10)


def test_equal_answers_are_at_no_distance_and_others_are():
    head, hidden = Head(random(11, 5, seed=0)), random(7, 5, seed=3)
    for distance in (lambda a, b: head_divergence(a, b, head), logit_divergence, relative_error):
        assert float(distance(hidden, hidden)) == pytest.approx(0, abs=1e-12)
        assert float(distance(1.1 * hidden, hidden)) > 1e-4


def test_without_gradients_none_is_made():
    head, hidden = Head(random(11, 5, seed=0)), random(7, 5, seed=3)
    assert not head_divergence(hidden, 2 * hidden, head).requires_grad


def test_a_relative_error_does_not_depend_on_the_size_of_answers():
    student, teacher = random(7, 5, seed=3), random(7, 5, seed=4)
    size = torch.tensor([1e-3, 1.0, 1e3, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)[:, None]
    assert float(relative_error(size * student, size * teacher)) == pytest.approx(
        float(relative_error(student, teacher))
    )


@pytest.mark.parametrize("kind", ["head", "logits", "values"])
def test_gradients_of_random_functions_have_the_second_derivative_as_their_covariance(kind):
    head = Head(random(4, 3, seed=0), random(4, seed=1), 1.7, 2.0)
    values = random(1, 3, seed=2)
    probe, distance = {
        "head": (lambda v, generator: head_probe(v, head, generator), lambda v: head_divergence(v, values, head)),
        "logits": (logit_probe, lambda v: logit_divergence(v, values)),
        "values": (error_probe, lambda v: relative_error(v, values)),
    }[kind]
    draws, generator = 20_000, torch.Generator().manual_seed(0)
    found = probe(values.expand(draws, -1).contiguous(), generator)
    plain_distance = (lambda v: plain(v, values, head, head)) if kind == "head" else distance
    expected = torch.autograd.functional.hessian(lambda row: plain_distance(row[None]), values[0])
    torch.testing.assert_close(found.T @ found / draws, expected, atol=0.02 * float(expected.abs().max()), rtol=0)
