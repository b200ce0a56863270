"""Learning scales and shifts of one block through the mask (Eq. 4, 6, 7, 8)."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockProblem, Candidate, Layer, Weights
from optimum_si.models.scale_groups import Channels

from .masking import log_score, straight_through_mask
from .scales import activation_scale, normalized_log, robust_scale
from .spectral import SpectralNormLoss


#: Step of a bias relative to that of log s, in units of the layer's output.
BIAS_RATE = 0.6


class InductionSettings(Protocol):
    """The fields of ``InductionConfig`` that learning reads."""

    epochs: int
    learning_rate: float
    initialization: str
    max_scale: float
    temperature: float
    spectral_weight: float
    spectral_p: int | str
    spectral_alpha: float | None
    spectral_normalized: bool
    shift: bool


@torch.enable_grad()
def learn_scales(
    problem: BlockProblem, settings: InductionSettings, samples: dict[str, Tensor], generator: torch.Generator
) -> Candidate:
    """Scales and shifts of a block: the best epoch (or the initial scales) by held-out loss.

    Args:
        problem: the block; its dense weights stay as they are.
        settings: how to learn.
        samples: tokens of each layer's input, [n, d_in], by view name.
        generator: shuffles the batches of each epoch.
    """
    names = ("ones", "activation") if settings.initialization == "auto" else (settings.initialization,)
    starts = [Student(problem, settings, initial_logs(problem, name, samples, settings.max_scale)) for name in names]
    student = starts[0] if len(starts) == 1 else min(starts, key=lambda start: start.validation_loss())
    # Methods that change kept weights answer differently to a bias: theirs is learned once the weights are known.
    biases = student.bias_changes if problem.method.keeps_weights else {}
    return descend(problem, settings, student, student.logs, biases, generator)


@torch.enable_grad()
def learn_biases(
    problem: BlockProblem, settings: InductionSettings, pruned: Weights, generator: torch.Generator
) -> dict[str, Tensor]:
    """Changes of shifted biases, [d_out] by view name, that suit pruned weights, which stay as they are.

    Arguments as for :func:`learn_scales`; ``pruned`` must be shifted.
    """
    student = FixedWeights(problem, pruned)
    return dict(descend(problem, settings, student, {}, student.bias_changes, generator).bias_change)


def changed(weights: Weights, changes: Mapping[str, Tensor]) -> Weights:
    """Weights with changes added to their biases."""
    result = dict(weights)
    for name, change in changes.items():
        weight, bias = weights[name]
        assert bias is not None
        result[name] = weight, bias + change
    return result


class _Trainable(Protocol):
    def loss_terms(self) -> tuple[Weights, Tensor | None]: ...
    def validation_loss(self) -> float: ...
    def clamp(self) -> None: ...
    def candidate(self) -> Candidate: ...


def descend(
    problem: BlockProblem,
    settings: InductionSettings,
    student: _Trainable,
    logs: dict[str, Tensor],
    biases: dict[str, Tensor],
    generator: torch.Generator,
) -> Candidate:
    """Adam with cosine decay on Eq. 7 (and Eq. 8); the best epoch by held-out loss, the start included."""
    groups = _parameter_groups(problem, settings, logs, biases)
    best, best_loss = student.candidate(), student.validation_loss()
    if not groups:
        return best
    values = [value for group in groups for value in group["params"]]
    optimizer = torch.optim.Adam(groups, lr=settings.learning_rate, betas=(0.9, 0.95))
    steps = max(settings.epochs * len(problem.training), 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(steps))
    for _ in range(settings.epochs):
        for number in torch.randperm(len(problem.training), generator=generator).tolist():
            batch = problem.training[number]
            weights, spectral = student.loss_terms()
            error, norm = batch.sums(problem.run(batch.hidden, batch.call, weights))
            loss = error / norm.clamp_min(1e-30)
            if spectral is not None:
                loss = loss + settings.spectral_weight * spectral
            # Not backward(): norms and whatever else the block holds must be left without gradients.
            for value, gradient in zip(values, torch.autograd.grad(loss, values, allow_unused=True), strict=True):
                value.grad = gradient
            optimizer.step()
            schedule.step()
            student.clamp()
        epoch_loss = student.validation_loss()
        if epoch_loss < best_loss:
            best, best_loss = student.candidate(), epoch_loss
    return best


class Student:
    """The masked block as a function of log s and of bias changes.

    Args:
        problem: the block.
        settings: how to learn.
        logs: initial log s by the name of its channels; trained in place.
    """

    def __init__(self, problem: BlockProblem, settings: InductionSettings, logs: dict[str, Tensor]) -> None:
        self.problem, self.settings, self.logs = problem, settings, logs
        self.base = {
            layer.view.name: log_score(problem.method.score(layer.weight, layer.scored_moments(settings.shift)))
            for layer in problem.layers
        }
        self.bias_changes = _zero_changes(problem) if settings.shift else {}
        self.spectral: SpectralNormLoss | None = None
        if settings.spectral_weight:
            self.spectral = SpectralNormLoss(
                [weight.detach() for weight in self.scaled_weights()],
                settings.spectral_p,
                settings.spectral_alpha,
                settings.spectral_normalized,
            )

    def scales(self) -> dict[str, Tensor]:
        """s by the name of its channels, differentiable in log s."""
        return {name: log.exp() for name, log in self.logs.items()}

    def weights(self) -> Weights:
        """Masked weights and shifted biases, differentiable in log s and bias changes."""
        problem, scales = self.problem, self.scales()
        result = {}
        for layer in problem.layers:
            score = self.base[layer.view.name]
            if (columns := problem.column_factor(scales, layer)) is not None:
                score = score + columns.log()
            if (rows := problem.row_factor(scales, layer)) is not None:
                score = score + rows.log()[:, None]
            masked = layer.weight * straight_through_mask(score, layer.target, self.settings.temperature)
            change = self.bias_changes.get(layer.view.name)
            bias = layer.bias if change is None else problem.shifted_bias(layer, masked, change)
            result[layer.view.name] = masked, bias
        return result

    def scaled_weights(self) -> list[Tensor]:
        """W_l S_l of Eq. 8."""
        scales = self.scales()
        factors = [self.problem.column_factor(scales, layer) for layer in self.problem.layers]
        return [
            layer.weight if factor is None else layer.weight * factor
            for layer, factor in zip(self.problem.layers, factors, strict=True)
        ]

    def loss_terms(self) -> tuple[Weights, Tensor | None]:
        """Weights to run the block with, and R_p at the current scales."""
        return self.weights(), None if self.spectral is None else self.spectral(self.scaled_weights())

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Held-out loss of the masked block."""
        return self.problem.validation_loss(self.weights())

    @torch.no_grad()
    def clamp(self) -> None:
        """Keep every s within [1 / max_scale, max_scale]."""
        bound = math.log(self.settings.max_scale)
        for log in self.logs.values():
            log.clamp_(-bound, bound)

    def candidate(self) -> Candidate:
        """A copy of the current scales and bias changes."""
        scales = {name: scale.detach().clone() for name, scale in self.scales().items()}
        return Candidate(scales, self.settings.shift, _copied(self.bias_changes))


class FixedWeights:
    """A pruned block as a function of bias changes alone.

    Args:
        problem: the block.
        pruned: its pruned weights.
    """

    def __init__(self, problem: BlockProblem, pruned: Weights) -> None:
        self.problem, self.pruned = problem, pruned
        self.bias_changes = _zero_changes(problem)

    def loss_terms(self) -> tuple[Weights, None]:
        """Weights to run the block with, differentiable in bias changes."""
        return changed(self.pruned, self.bias_changes), None

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Held-out loss of the pruned block."""
        return self.problem.validation_loss(self.loss_terms()[0])

    def clamp(self) -> None:
        """Biases are free."""

    def candidate(self) -> Candidate:
        """A copy of the current bias changes."""
        return Candidate({}, True, _copied(self.bias_changes))


def initial_logs(
    problem: BlockProblem, initialization: str, samples: dict[str, Tensor], max_scale: float
) -> dict[str, Tensor]:
    """log s that training starts from, for every scale that can move a mask.

    A layer's own scale starts at 1 where the layer also has a shared one.
    """
    started: set[str] = set()
    logs = {}
    for channels in problem.channels:
        readers = [slot.view.name for slot in channels.consumers()]
        if _can_move(channels, problem):
            kind = "ones" if started.intersection(readers) else initialization
            logs[channels.name] = _initial_log(channels, problem.layers, kind, samples, max_scale).requires_grad_()
        started.update(readers)
    return logs


def _initial_log(
    channels: Channels, layers: list[Layer], initialization: str, samples: dict[str, Tensor], max_scale: float
) -> Tensor:
    """log s, [channels.size], in the dtype of the weights."""
    reference = layers[0].weight
    found = [(slot, layer) for slot in channels.consumers() for layer in layers if layer.view is slot.view]
    if not found or initialization == "ones":
        return torch.zeros(channels.size, dtype=reference.dtype, device=reference.device)
    slot, layer = found[0]
    if initialization == "robust":
        scale = robust_scale(samples[layer.view.name], layer.moments)
    else:
        scale = activation_scale(layer.moments)
    index = None if slot.index is None else slot.index.to(scale.device)
    return normalized_log(scale, index, channels.size, max_scale).to(reference.dtype)


def _can_move(channels: Channels, problem: BlockProblem) -> bool:
    """Whether a value of s can change a mask: not rows only, under a threshold of each row or N:M group."""
    names = {layer.view.name for layer in problem.layers}
    if any(slot.view.name in names for slot in channels.consumers()):
        return True
    shared = problem.method.ranks_rows_together and any(layer.target.shares_rows for layer in problem.layers)
    return shared and channels.rows_only and any(slot.view.name in names for slot in channels.slots)


def _zero_changes(problem: BlockProblem) -> dict[str, Tensor]:
    return {
        layer.view.name: torch.zeros_like(layer.bias, requires_grad=True)
        for layer in problem.layers
        if layer.shift and layer.bias is not None
    }


def _copied(changes: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values.detach().clone() for name, values in changes.items()}


def _parameter_groups(
    problem: BlockProblem, settings: InductionSettings, logs: dict[str, Tensor], biases: dict[str, Tensor]
) -> list[dict[str, Any]]:
    """Adam's parameter groups: log s, and bias changes whose steps are small beside the layer's own output."""
    groups: list[dict[str, Any]] = [{"params": list(logs.values())}] if logs else []
    for layer in problem.layers:
        if layer.view.name in biases:
            size = float(layer.moments.diagonal.mean().sqrt() * layer.weight.norm() / math.sqrt(len(layer.weight)))
            rate = settings.learning_rate * BIAS_RATE * size
            groups.append({"params": [biases[layer.view.name]], "lr": rate})
    return groups


def cosine(steps: int) -> Callable[[int], float]:
    return lambda step: (1 + math.cos(math.pi * step / steps)) / 2
