"""How far a pruned model's answers are from the dense one's, and the gradient, without the logits of all tokens."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


#: Logits that are in memory at once.
CHUNK = 2**23


@dataclass(frozen=True, eq=False)
class Head:
    """A linear output head and what a model does with its logits: ``cap * tanh(factor * (W x + b) / cap)``.

    Args:
        weight: W, [vocabulary, features].
        bias: b, [vocabulary], or None.
        factor: the model's own scale of its logits.
        cap: soft bound of its logits, or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    factor: float = 1.0
    cap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits in fp32 (fp64 where ``hidden`` is fp64), [tokens, vocabulary], of head inputs [tokens, features]."""
        logits = self.factor * _wide(linear(hidden.to(self.weight.dtype), self.weight, self.bias))
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def backward(self, logits: Tensor, gradient: Tensor) -> Tensor:
        """The gradient in the head's input, from that in the ``logits`` that :meth:`logits` gave."""
        if self.cap is not None:
            gradient = gradient * (1 - (logits / self.cap).square())
        return _wide((self.factor * gradient).to(self.weight.dtype) @ self.weight)


def head_divergence(
    student: Tensor, teacher: Tensor, head: Head, dense_head: Head | None = None, chunk: int | None = None
) -> Tensor:
    """Sum over tokens of KL(dense || pruned) over the vocabulary, differentiable in ``student``.

    Args:
        student, teacher: inputs of the head, [tokens, features].
        head: of the pruned model; it gets no gradient.
        dense_head: of the dense model; None where it is the same.
        chunk: tokens whose logits are made at once; None for :data:`CHUNK` logits.
    """
    return _HeadDivergence.apply(
        student, teacher, head, dense_head or head, chunk or max(CHUNK // len(head.weight), 1)
    )


class _HeadDivergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, head: Head, dense_head: Head, chunk: int) -> Tensor:
        needed = student.requires_grad
        gradient = torch.empty_like(student) if needed else None
        total = torch.zeros((), dtype=torch.float64, device=student.device)
        for start in range(0, len(student), chunk):
            part = slice(start, start + chunk)
            expected = dense_head.logits(teacher[part]).log_softmax(dim=-1)
            logits = head.logits(student[part])
            given = logits.log_softmax(dim=-1)
            probability = expected.exp()
            total += (probability * expected.sub_(given)).sum(dtype=torch.float64)
            if gradient is not None:
                gradient[part] = head.backward(logits, given.exp_().sub_(probability))
        ctx.save_for_backward(gradient)
        return total.to(_wide(student).dtype)

    @staticmethod
    def backward(ctx: Any, output: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return (output * gradient).to(gradient.dtype), None, None, None, None


@torch.no_grad()
def head_probe(hidden: Tensor, head: Head, generator: torch.Generator) -> Tensor:
    """Gradients, in head inputs [tokens, features], of the log probability of a token that the model itself draws.

    Their outer products are the Fisher information on average: the second derivative of :func:`head_divergence`.
    """
    gradient = torch.empty_like(hidden)
    chunk = max(CHUNK // len(head.weight), 1)
    for start in range(0, len(hidden), chunk):
        logits = head.logits(hidden[start : start + chunk])
        gradient[start : start + chunk] = head.backward(logits, logit_probe(logits, generator))
    return gradient


@torch.no_grad()
def logit_probe(logits: Tensor, generator: torch.Generator) -> Tensor:
    """The same in logits [n, classes], for :func:`logit_divergence`."""
    probability = _wide(logits).softmax(dim=-1)
    drawn = torch.multinomial(probability, 1, generator=generator)
    return (-probability).scatter_add_(1, drawn, torch.ones_like(drawn, dtype=probability.dtype))


@torch.no_grad()
def error_probe(values: Tensor, generator: torch.Generator) -> Tensor:
    """The same in values [n, features], for :func:`relative_error`."""
    values = _wide(values)
    signs = torch.randint(2, values.shape, generator=generator, device=values.device, dtype=values.dtype) * 2 - 1
    return signs * (2 / values.square().sum(dim=-1, keepdim=True).clamp_min(1e-30)).sqrt()


def logit_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum over rows of KL(dense || pruned) of logits [n, classes]."""
    expected = _wide(teacher).log_softmax(dim=-1)
    return (expected.exp() * (expected - _wide(student).log_softmax(dim=-1))).sum()


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum over rows of the squared error relative to the dense row's square, of values [n, features]."""
    student, teacher = _wide(student), _wide(teacher)
    lengths = teacher.square().sum(dim=-1).clamp_min(1e-30)
    return ((student - teacher).square().sum(dim=-1) / lengths).sum()


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
