"""Kept weights, norms and biases of a whole block by gradient, towards the dense block's output (design 1.7)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..induction.learn import cosine
from ..induction.problem import BlockProblem, Weights


#: Adam's step in units of a parameter's own size, at the start of a cosine.
RATE = 1e-2


@dataclass(frozen=True, eq=False)
class Refined:
    """What refinement gives.

    Args:
        weights: of the block's pruned layers, zeros where they were.
        others: norms of the block, by name inside it; empty where no epoch was better than the start.
        loss_before, loss_after: relative squared error of the block's output on held-out windows.
    """

    weights: Weights
    others: dict[str, Tensor]
    loss_before: float
    loss_after: float


@torch.enable_grad()
def refine(problem: BlockProblem, weights: Weights, epochs: int, generator: torch.Generator) -> Refined:
    """Adam over kept weights, biases and norms on the block's output; the best epoch by held-out loss, or the start.

    Args:
        problem: the block; its inputs come from pruned blocks, its targets from dense ones.
        weights: pruned and fitted.
        epochs: passes over the training windows.
        generator: shuffles them.
    """
    values = {name: weight.detach().clone().requires_grad_() for name, (weight, _) in weights.items()}
    masks = {name: weight != 0 for name, (weight, _) in weights.items()}
    biases = {name: bias.detach().clone().requires_grad_() for name, (_, bias) in weights.items() if bias is not None}
    others = {name: value.detach().clone().requires_grad_() for name, value in _norms(problem.block).items()}

    def current() -> Weights:
        return {name: (value, biases.get(name, weights[name][1])) for name, value in values.items()}

    before = best_loss = problem.validation_loss(weights)
    best: tuple[Weights, dict[str, Tensor]] = weights, {}
    trained = [*values.values(), *biases.values(), *others.values()]
    groups = [{"params": [value], "lr": RATE * _size(value)} for value in trained]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, cosine(max(epochs * len(problem.training), 1)))
    for _ in range(epochs):
        for number in torch.randperm(len(problem.training), generator=generator).tolist():
            batch = problem.training[number]
            error, norm = batch.sums(problem.run(batch.hidden, batch.call, current(), others))
            loss = error / norm.clamp_min(1e-30)
            for value, gradient in zip(trained, torch.autograd.grad(loss, trained, allow_unused=True), strict=True):
                value.grad = gradient
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for name, value in values.items():
                    value.mul_(masks[name])
        loss_now = problem.validation_loss(current(), others)
        if loss_now < best_loss:
            best_loss = loss_now
            best = {name: _copied(*pair) for name, pair in current().items()}, _detached(others)
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


def _copied(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return weight.detach().clone(), None if bias is None else bias.detach().clone()


def _detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in values.items()}
