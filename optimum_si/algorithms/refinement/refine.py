"""Kept weights, norms and biases of a whole block by gradient, towards the dense block's output."""

from dataclasses import dataclass

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import Weights
from optimum_si.algorithms.training import train
from optimum_si.models.norms import norm_parameters


#: How far an epoch of Adam's largest steps goes, in units of a parameter's own size. Measured: the more batches an
#: epoch has, the smaller the steps that suit it. And the largest step that was measured to do good.
TRAVEL, LARGEST = 0.12, 1e-2


@dataclass(frozen=True, eq=False)
class Refined:
    """What refinement gives.

    Args:
        weights: of the block's pruned layers, zeros where they were.
        norm_params: norms of the block, by name inside it; empty where no epoch was better than the start.
        loss_before: relative squared error of the block's output on held-out windows, of what is judged by them.
        loss_after: the same of what becomes of it.
    """

    weights: Weights
    norm_params: dict[str, Tensor]
    loss_before: float
    loss_after: float


def refine(state: BlockState, epochs: int, generator: torch.Generator) -> Refined:
    """Adam over kept weights, biases and norms on the block's output; the best epoch by held-out loss, or the start.

    A fit errs less on windows that it has seen: measured, half as much where they are few. Epochs are therefore judged
    from weights that were fitted without the held-out ones, and what they bring is added to those fitted to all.

    Args:
        state: the block, pruned; its inputs come from pruned blocks, its targets from dense ones.
        epochs: passes over the training windows.
        generator: shuffles them.
    """
    # A layer that fell back was fitted once.
    weights, start = state.weights, {**state.weights, **(state.without_held_out or {})}
    values = {name: weight.detach().clone().requires_grad_() for name, (weight, _) in start.items()}
    masks = {name: weight != 0 for name, (weight, _) in weights.items()}
    biases = {name: bias.detach().clone().requires_grad_() for name, (_, bias) in start.items() if bias is not None}
    norms = {name: norm.detach().clone().requires_grad_() for name, norm in norm_parameters(state.block).items()}

    def current() -> Weights:
        return {name: (value, biases.get(name)) for name, value in values.items()}

    def keep_zeros() -> None:
        for name, value in values.items():
            value.mul_(masks[name])

    rate = min(TRAVEL / max(len(state.training), 1), LARGEST)
    trained = [*values.values(), *biases.values(), *norms.values()]
    best, before, after = train(
        [{"params": [value], "lr": rate * _size(value)} for value in trained],
        state.training,
        epochs,
        generator,
        loss=lambda batch: batch.loss(state.run(batch.inputs, current(), norms)),
        constrain=keep_zeros,
        held_out_loss=lambda: state.validation_loss(current(), norms),
        keep=lambda: (_moved(weights, start, current()), _detached(norms)),
    )
    return Refined(*(best or (weights, {})), before, after)


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
