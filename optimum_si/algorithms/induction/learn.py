"""Learning scales and shifts of one block through the mask, and factors of what is left (Eq. 4, 6, 7, 8)."""

import math
from typing import Any

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.calls import Batch
from optimum_si.algorithms.layers import Scaling, Weights
from optimum_si.algorithms.training import train
from optimum_si.config.groups import InductionConfig

from .initial_scales import initial_logs
from .kept import Kept, KeptStudent
from .students import ScaleStudent


#: Step of a bias relative to that of log s, in units of the layer's output.
BIAS_RATE = 0.6
#: Step of a factor of what is left relative to that of s, both in log.
FACTOR_RATE = 0.5


@torch.enable_grad()
def learn_scales(state: BlockState, settings: InductionConfig, generator: torch.Generator) -> Scaling:
    """Scales and shifts of a block: the best epoch (or the initial scales) by held-out loss.

    Args:
        state: the block; its dense weights stay as they are.
        settings: how to learn.
        generator: shuffles the batches of each epoch.
    """
    # Methods that change kept weights give them another size: theirs is learned once the weights are known.
    kept = Kept.of(state, settings) if state.method.keeps_weights else Kept(shifted=settings.shift)
    names = ("ones", "activation") if settings.initialization == "auto" else (settings.initialization,)
    starts = [ScaleStudent(state, settings, initial_logs(state, name, settings.max_scale), kept) for name in names]
    student = starts[0] if len(starts) == 1 else min(starts, key=lambda start: _held_out_loss(state, start))
    return _trained(state, settings, student, generator)


@torch.enable_grad()
def learn_kept(state: BlockState, settings: InductionConfig, pruned: Weights, generator: torch.Generator) -> Scaling:
    """Factors and biases of pruned weights, whose masks and values stay; no scales.

    Arguments as for :func:`learn_scales`.
    """
    return _trained(state, settings, KeptStudent(state, pruned, Kept.of(state, settings)), generator)


def _trained(
    state: BlockState, settings: InductionConfig, student: ScaleStudent | KeptStudent, generator: torch.Generator
) -> Scaling:
    """Adam on Eq. 7 (and Eq. 8); the start counts as an epoch."""

    def loss(batch: Batch) -> Tensor:
        error, spectral = batch.loss(state.run(batch.inputs, student.weights())), student.spectral_loss()
        return error if spectral is None else error + settings.spectral_weight * spectral

    start = student.scaling()
    best, _, _ = train(
        _parameter_groups(state, settings, student),
        state.training,
        settings.epochs,
        generator,
        loss=loss,
        constrain=student.clamp,
        held_out_loss=lambda: _held_out_loss(state, student),
        keep=student.scaling,
    )
    return best or start


@torch.no_grad()
def _held_out_loss(state: BlockState, student: ScaleStudent | KeptStudent) -> float:
    return state.validation_loss(student.weights())


def _parameter_groups(
    state: BlockState, settings: InductionConfig, student: ScaleStudent | KeptStudent
) -> list[dict[str, Any]]:
    """Adam's parameter groups: log s, log factors, and bias changes, which go by the size of the layer's output."""
    kept, rate = student.kept, settings.learning_rate
    factors = [*kept.rows.values(), *kept.columns.values()]
    groups: list[dict[str, Any]] = [
        {"params": [*student.logs.values()], "lr": rate},
        {"params": factors, "lr": rate * FACTOR_RATE},
    ]
    for layer in state.layers:
        if layer.view.name in kept.bias_changes:
            size = float(layer.moments.diagonal.mean().sqrt() * layer.weight.norm() / math.sqrt(len(layer.weight)))
            groups.append({"params": [kept.bias_changes[layer.view.name]], "lr": rate * BIAS_RATE * size})
    return [group for group in groups if group["params"]]
