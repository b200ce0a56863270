"""Learning scales and shifts of one block through the mask (Eq. 4, 6, 7, 8)."""

import math
from typing import Protocol

import torch
from torch import Tensor

from ..models.channels import Channels
from .masking import log_score, straight_through_mask
from .problem import BlockProblem, Candidate, Layer, Weights
from .scales import activation_scale, normalised_log, robust_scale
from .spectral import SpectralNormLoss


class InductionSettings(Protocol):
    """The fields of ``InductionConfig`` that learning reads."""

    epochs: int
    learning_rate: float
    initialisation: str
    max_scale: float
    temperature: float
    spectral_weight: float
    spectral_p: int | str
    spectral_alpha: float | None
    spectral_normalised: bool
    shift: bool


def learn(
    problem: BlockProblem, settings: InductionSettings, samples: dict[str, Tensor], generator: torch.Generator
) -> Candidate:
    """Scales and shifts of a block: the best epoch (or the initial scales) by held-out loss.

    Args:
        problem: the block; its dense weights stay as they are.
        settings: how to learn.
        samples: tokens of each layer's input, [n, d_in], by view name.
        generator: shuffles the batches of each epoch.
    """
    student = _Student(problem, settings, samples)
    optimiser = torch.optim.Adam(student.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95))
    steps = max(settings.epochs * len(problem.training), 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    best, best_loss = student.candidate(), student.validation_loss()
    for _ in range(settings.epochs):
        for number in torch.randperm(len(problem.training), generator=generator).tolist():
            batch = problem.training[number]
            weights = student.weights()
            error, norm = batch.sums(problem.run(batch.hidden, batch.call, weights))
            loss = error / norm.clamp_min(1e-30)
            if student.spectral is not None:
                loss = loss + settings.spectral_weight * student.spectral_loss()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            student.clamp()
        epoch_loss = student.validation_loss()
        if epoch_loss < best_loss:
            best, best_loss = student.candidate(), epoch_loss
    return best


class _Student:
    """The masked block as a function of log s and of bias changes."""

    def __init__(self, problem: BlockProblem, settings: InductionSettings, samples: dict[str, Tensor]) -> None:
        self.problem, self.settings = problem, settings
        self.logs = {
            entry.name: initial_log(entry, problem.layers, samples, settings).requires_grad_()
            for entry in problem.channels
            if _can_move(entry, problem)
        }
        self.base = {
            layer.view.name: log_score(problem.method.score(layer.weight, layer.scored_moments(settings.shift)))
            for layer in problem.layers
        }
        self.bias_change = {
            layer.view.name: torch.zeros_like(layer.bias, requires_grad=True)
            for layer in problem.layers
            if settings.shift and layer.shift and layer.bias is not None
        }
        self.spectral: SpectralNormLoss | None = None
        if settings.spectral_weight:
            self.spectral = SpectralNormLoss(
                [weight.detach() for weight in self.scaled_weights()],
                settings.spectral_p,
                settings.spectral_alpha,
                settings.spectral_normalised,
            )

    def parameters(self) -> list[dict[str, object]]:
        """Adam's parameter groups: log s, and bias changes in units of their bias."""
        groups: list[dict[str, object]] = [{"params": list(self.logs.values())}]
        for layer in self.problem.layers:
            if layer.view.name in self.bias_change:
                # A step must be small beside the outputs that the bias is added to.
                size = float(layer.moments.diagonal.mean().sqrt() * layer.weight.norm() / math.sqrt(len(layer.weight)))
                rate = self.settings.learning_rate * 0.1 * size
                groups.append({"params": [self.bias_change[layer.view.name]], "lr": rate})
        return groups

    def scales(self) -> dict[str, Tensor]:
        """s by the name of its channels, differentiable in log s."""
        return {name: log.exp() for name, log in self.logs.items()}

    def weights(self) -> Weights:
        """Masked weights and shifted biases, differentiable in log s and bias changes."""
        problem = self.problem
        scales = self.scales()
        result = {}
        for layer in problem.layers:
            score = self.base[layer.view.name]
            columns = problem.factor(scales, layer, "columns")
            if columns is not None:
                score = score + columns.log()
            rows = problem.factor(scales, layer, "rows") if problem.method.ranks_rows_together else None
            if rows is not None:
                score = score + rows.log()[:, None]
            masked = layer.weight * straight_through_mask(score, layer.target, self.settings.temperature)
            change = self.bias_change.get(layer.view.name)
            bias = layer.bias if change is None else problem.shifted_bias(layer, masked, change)
            result[layer.view.name] = masked, bias
        return result

    def scaled_weights(self) -> list[Tensor]:
        """W_l S_l of Eq. 8."""
        scales = self.scales()
        factors = [self.problem.factor(scales, layer, "columns") for layer in self.problem.layers]
        return [
            layer.weight if factor is None else layer.weight * factor
            for layer, factor in zip(self.problem.layers, factors, strict=True)
        ]

    def spectral_loss(self) -> Tensor:
        """R_p at the current scales."""
        assert self.spectral is not None
        return self.spectral(self.scaled_weights())

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
        change = {name: values.detach().clone() for name, values in self.bias_change.items()}
        return Candidate(scales, self.settings.shift, change)


def initial_log(
    channels: Channels, layers: list[Layer], samples: dict[str, Tensor], settings: InductionSettings
) -> Tensor:
    """log s that training starts from, [channels.size], in the dtype of the weights."""
    layer = next((layer for slot in channels.consumers() for layer in layers if layer.view is slot.view), None)
    reference = layers[0].weight
    if layer is None or settings.initialisation == "ones":
        return torch.zeros(channels.size, dtype=reference.dtype, device=reference.device)
    if settings.initialisation == "robust":
        scale = robust_scale(samples[layer.view.name], layer.moments)
    else:
        scale = activation_scale(layer.moments)
    index = next(slot.index for slot in channels.consumers() if slot.view is layer.view)
    index = None if index is None else index.to(scale.device)
    return normalised_log(scale, index, channels.size, settings.max_scale).to(reference.dtype)


def _can_move(channels: Channels, problem: BlockProblem) -> bool:
    """False where no value of s can change a mask: rows only, under a threshold of each row or N:M group."""
    names = {layer.view.name for layer in problem.layers}
    reads = any(slot.view.name in names for slot in channels.consumers())
    rows_matter = problem.method.ranks_rows_together and any(
        getattr(layer.target, "group", None) == "layer" for layer in problem.layers
    )
    return reads or (rows_matter and any(slot.view.name in names for slot in channels.slots))
