"""Learning scales and shifts of one block through the mask (Eq. 4, 6, 7, 8)."""

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
from .students import BiasStudent, ScaleStudent


#: Step of a bias relative to that of log s, in units of the layer's output.
BIAS_RATE = 0.6


@torch.enable_grad()
def learn_scales(state: BlockState, settings: InductionConfig, generator: torch.Generator) -> Scaling:
    """Scales and shifts of a block: the best epoch (or the initial scales) by held-out loss.

    Args:
        state: the block; its dense weights stay as they are.
        settings: how to learn.
        generator: shuffles the batches of each epoch.
    """
    names = ("ones", "activation") if settings.initialization == "auto" else (settings.initialization,)
    starts = [ScaleStudent(state, settings, initial_logs(state, name, settings.max_scale)) for name in names]
    student = starts[0] if len(starts) == 1 else min(starts, key=lambda start: start.held_out_loss())
    # Methods that change kept weights answer differently to a bias: theirs is learned once the weights are known.
    biases = student.bias_changes if state.method.keeps_weights else {}
    return _trained(state, settings, student, student.logs, biases, generator)


@torch.enable_grad()
def learn_biases(
    state: BlockState, settings: InductionConfig, pruned: Weights, generator: torch.Generator
) -> dict[str, Tensor]:
    """Changes of shifted biases, [d_out] by view name, that suit pruned weights, which stay as they are.

    Arguments as for :func:`learn_scales`; ``pruned`` must be shifted.
    """
    student = BiasStudent(state, pruned)
    return dict(_trained(state, settings, student, {}, student.bias_changes, generator).bias_change)


def _trained(
    state: BlockState,
    settings: InductionConfig,
    student: ScaleStudent | BiasStudent,
    logs: dict[str, Tensor],
    biases: dict[str, Tensor],
    generator: torch.Generator,
) -> Scaling:
    """Adam on Eq. 7 (and Eq. 8); the start counts as an epoch."""

    def loss(batch: Batch) -> Tensor:
        weights, spectral = student.loss_terms()
        error = batch.loss(state.run(batch.inputs, weights))
        return error if spectral is None else error + settings.spectral_weight * spectral

    start = student.scaling()
    best, _, _ = train(
        _parameter_groups(state, settings, logs, biases),
        state.training,
        settings.epochs,
        generator,
        loss=loss,
        constrain=student.clamp,
        held_out_loss=student.held_out_loss,
        keep=student.scaling,
    )
    return best or start


def _parameter_groups(
    state: BlockState, settings: InductionConfig, logs: dict[str, Tensor], biases: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """Adam's parameter groups: log s, and bias changes whose steps are small beside the layer's own output."""
    groups: list[dict[str, Any]] = [{"params": list(logs.values()), "lr": settings.learning_rate}] if logs else []
    for layer in state.layers:
        if layer.view.name in biases:
            size = float(layer.moments.diagonal.mean().sqrt() * layer.weight.norm() / math.sqrt(len(layer.weight)))
            rate = settings.learning_rate * BIAS_RATE * size
            groups.append({"params": [biases[layer.view.name]], "lr": rate})
    return groups
