"""Kept weights, norms and biases of a whole block by gradient, towards the dense block's output (design 1.7)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from optimum_si.algorithms.block_state import BlockProblem, Weights
from optimum_si.algorithms.induction.learn import cosine


#: How far an epoch of Adam's largest steps goes, in units of a parameter's own size. Measured: the more batches an
#: epoch has, the smaller the steps that suit it. And the largest step that was measured to do good.
TRAVEL, LARGEST = 0.12, 1e-2


@dataclass(frozen=True, eq=False)
class Refined:
    """What refinement gives.

    Args:
        weights: of the block's pruned layers, zeros where they were.
        others: norms of the block, by name inside it; empty where no epoch was better than the start.
        loss_before, loss_after: relative squared error of the block's output on held-out windows, of ``apart`` and of
            what becomes of it.
    """

    weights: Weights
    others: dict[str, Tensor]
    loss_before: float
    loss_after: float


@torch.enable_grad()
def refine(
    problem: BlockProblem, weights: Weights, apart: Weights, epochs: int, generator: torch.Generator
) -> Refined:
    """Adam over kept weights, biases and norms on the block's output; the best epoch by held-out loss, or the start.

    A fit errs less on windows that it has seen: measured, half as much where they are few. Epochs are therefore judged
    from weights that were fitted without the held-out ones, and what they bring is added to those fitted to all.

    Args:
        problem: the block; its inputs come from pruned blocks, its targets from dense ones.
        weights: pruned and fitted, to all windows.
        apart: the same masks, fitted without the held-out windows where layers are fitted in sequence.
        epochs: passes over the training windows.
        generator: shuffles them.
    """
    values = {name: weight.detach().clone().requires_grad_() for name, (weight, _) in apart.items()}
    masks = {name: weight != 0 for name, (weight, _) in weights.items()}
    biases = {name: bias.detach().clone().requires_grad_() for name, (_, bias) in apart.items() if bias is not None}
    others = {name: value.detach().clone().requires_grad_() for name, value in _norms(problem.block).items()}

    def current() -> Weights:
        return {name: (value, biases.get(name)) for name, value in values.items()}

    before = best_loss = problem.validation_loss(apart)
    best: tuple[Weights, dict[str, Tensor]] = weights, {}
    trained = [*values.values(), *biases.values(), *others.values()]
    rate = min(TRAVEL / max(len(problem.training), 1), LARGEST)
    groups = [{"params": [value], "lr": rate * _size(value)} for value in trained]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(max(epochs * len(problem.training), 1)))
    for _ in range(epochs):
        for number in torch.randperm(len(problem.training), generator=generator).tolist():
            batch = problem.training[number]
            error, norm = batch.sums(problem.run(batch.hidden, batch.call, current(), others))
            loss = error / norm.clamp_min(1e-30)
            for value, gradient in zip(trained, torch.autograd.grad(loss, trained, allow_unused=True), strict=True):
                value.grad = gradient
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for name, value in values.items():
                    value.mul_(masks[name])
        loss_now = problem.validation_loss(current(), others)
        if loss_now < best_loss:
            best_loss = loss_now
            best = _moved(weights, apart, current()), _detached(others)
    return Refined(*best, before, best_loss)


def _norms(block: nn.Module) -> dict[str, Tensor]:
    """Parameters of a block's norms, by name inside it: vectors in modules that are no linear maps."""
    return {
        f"{name}.{local}": value
        for name, module in block.named_modules()
        if "norm" in type(module).__name__.lower()
        for local, value in module.named_parameters(recurse=False)
    }


def _size(value: Tensor) -> float:
    """Root mean square of what is not zero; a little for what is nothing but zeros."""
    energy = value.detach().square().sum() / (value != 0).sum().clamp_min(1)
    return max(float(energy.sqrt()), 1e-3)


def _moved(weights: Weights, start: Weights, stop: Weights) -> Weights:
    """Weights after the same way as from ``start`` to ``stop``."""

    def moved(value: Tensor, start: Tensor, stop: Tensor) -> Tensor:
        return value + (stop.detach() - start)

    result = {}
    for name, (weight, bias) in weights.items():
        (first, first_bias), (last, last_bias) = start[name], stop[name]
        if bias is not None and first_bias is not None and last_bias is not None:
            bias = moved(bias, first_bias, last_bias)
        result[name] = moved(weight, first, last), bias
    return result


def _detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in values.items()}
