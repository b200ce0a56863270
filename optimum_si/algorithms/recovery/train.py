"""Training some parameters of a whole model over the windows of a recovery; the best by held-out windows is kept."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from optimum_si.algorithms.whole_model.passing import fast_products
from optimum_si.linalg.finite import all_finite
from optimum_si.warnings import warn

from .memory import Level
from .references import References
from .trained import Trained, zeros_kept


BETAS, LARGEST_GRADIENT = (0.9, 0.95), 1.0
#: Rate of norms, biases and factors beside that of weights.
OF_VECTORS = 3
#: Share of the steps in which the learning rate rises.
WARMUP = 0.05


@dataclass
class Phase:
    """How far the training of some parameters has come.

    Args:
        step: steps done.
        before, best: mean distance from the dense model's answers on held-out windows at the start, and of what is
            kept; NaN before the first evaluation.
        kept: the best values as they are stored, of which the start is one.
        values: the values as they are, wide; empty but in a saved phase.
        optimizer: its state; empty but in a saved phase.
        begun: seconds that the recovery had taken when this began; NaN before.
        rates: highest learning rates of the optimizer's groups, which may go by the values at the start.
        ended: why it stopped before its last step; "" where it did not.
    """

    step: int = 0
    before: float = math.nan
    best: float = math.nan
    begun: float = math.nan
    kept: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    ended: str = ""


@dataclass
class Clock:
    """Time that a recovery has taken, over all calls that it was resumed in.

    Args:
        limit: seconds that it may take; None for any.
        earlier: seconds of earlier calls.
        now: what gives the time.
    """

    limit: float | None = None
    earlier: float = 0.0
    now: Callable[[], float] = monotonic

    def __post_init__(self) -> None:
        self._started = self.now()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self.earlier + self.now() - self._started

    def share(self, begun: float, reserve: float) -> float:
        """Share of the time between ``begun`` and the limit, all but ``reserve`` seconds, that is over; else 0."""
        if self.limit is None:
            return 0.0
        room = self.limit - reserve - begun
        return 1.0 if room <= 0 else (self.seconds - begun) / room


def train(
    references: References,
    trained: Trained,
    phase: Phase,
    epochs: int,
    learning_rate: float,
    level: Level,
    clock: Clock,
    stepped: Callable[[float], None],
    save: Callable[[Callable[[], dict[str, Any]]], None],
) -> Phase:
    """Train parameters in place; they end as the best held-out loss had them, rounded to what is stored.

    Args:
        references: windows with the dense model's answers; they run the pruned model.
        trained: what is trained; the model has it in fp32 (fp64 where it is).
        phase: where to go on; a new one starts.
        epochs: passes over the windows.
        learning_rate: of Adam at its highest.
        level: which optimizer.
        clock: time so far, and its limit.
        stepped: told the mean loss of each step.
        save: is given a function after each step that makes plain values of the phase, to go on from.
    """
    steps = [windows for epoch in range(epochs) for windows in references.steps.of_epoch(epoch)]
    every = max(len(steps) // epochs, 1)
    now = clock.seconds
    if not phase.kept:
        phase.begun = now
        phase.before = phase.best = _held_out_loss(references, trained)
        phase.kept = trained.keep()
    else:
        trained.restore(phase.values)
    reserve = clock.seconds - now  # for the last evaluation
    optimizer = optimizer_of(level, trained, learning_rate)
    phase.rates = phase.rates or [group["lr"] for group in optimizer.param_groups]
    if phase.optimizer:
        optimizer.load_state_dict(phase.optimizer)
    phase.values, phase.optimizer = {}, {}
    while phase.step < len(steps) and not phase.ended:
        share = clock.share(phase.begun, reserve)
        for group, rate in zip(optimizer.param_groups, phase.rates, strict=True):
            group["lr"] = rate * _decay(phase.step, len(steps), share)
        loss = _step(references, trained, steps[phase.step])
        phase.step += 1
        if not math.isfinite(loss):
            phase.ended = "NaN"
            warn(
                f"recovery: the loss of step {phase.step} is not finite, so it stops with the best so far: lower "
                "recovery.learning_rate."
            )
            break
        optimizer.step()
        trained.keep_nonzero()
        trained.forget_gradients()
        stepped(loss)
        if share >= 1:
            phase.ended = "time"
        if phase.step % every == 0 or phase.step == len(steps) or phase.ended:
            _judge(references, trained, phase)
        save(lambda: _plain(phase, trained, optimizer))
    trained.forget_gradients()
    trained.restore(phase.kept)
    return phase


def _judge(references: References, trained: Trained, phase: Phase) -> None:
    """Keep the values, as they would be stored, where held-out windows like them better than those kept."""
    with trained.as_stored() as stored:
        now = _held_out_loss(references, trained)
        finite = all_finite(stored.values())
    assert zeros_kept(phase.kept, stored), "a pruned weight is no longer zero"
    if now < phase.best and finite:
        phase.kept, phase.best = stored, now


def _held_out_loss(references: References, trained: Trained) -> float:
    """Of the model as it will be used: without narrower products."""
    device = next(iter(trained.values.values())).device
    with fast_products(device, wanted=False):
        return references.held_out_loss()


def _step(references: References, trained: Trained, windows: list[int]) -> float:
    """Gradients of the mean loss of some windows; returns the loss, not finite where a gradient is not."""
    count, total = references.count(windows), 0.0
    with torch.enable_grad():
        for part in references.steps.parts(windows):
            loss = references.loss(part, references.answered(part)) / count
            loss.backward()
            total += float(loss.detach())
    trained.mask_gradients()
    gradients = [value for value in trained.values.values() if value.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(gradients, LARGEST_GRADIENT)
    return total if bool(torch.isfinite(norm)) else math.nan


def _decay(step: int, steps: int, share_of_time: float) -> float:
    """Factor of the learning rate: up within the warmup, then along a cosine to zero."""
    warmup = max(round(WARMUP * steps), 1)
    over = min(max(step / steps, share_of_time), 1.0)
    return min((step + 1) / warmup, 1.0) * 0.5 * (1 + math.cos(math.pi * over))


def optimizer_of(level: Level, trained: Trained, learning_rate: float) -> torch.optim.Optimizer:
    """Adam or, where memory is short, Adafactor; ``learning_rate`` is that of weights."""
    groups: list[dict[str, Any]] = [
        {"params": [value], "lr": learning_rate * (1 if value.ndim > 1 else OF_VECTORS)}
        for value in trained.values.values()
    ]
    if level is not Level.ADAFACTOR:
        on = groups[0]["params"][0].device.type
        return torch.optim.Adam(groups, betas=BETAS, fused=on in ("cpu", "cuda"))
    # Its steps are relative to a parameter's size, where Adam's are absolute.
    for group in groups:
        group["lr"] /= _size(*group["params"])
    return torch.optim.Adafactor(groups, weight_decay=0.0)


def _size(value: Tensor) -> float:
    return max(float(value.detach().square().mean().sqrt()), 1e-3)


def _plain(phase: Phase, trained: Trained, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A phase as plain values and tensors, from which :class:`Phase` is made again."""
    values = {name: value.detach() for name, value in trained.values.items()}
    return {**vars(phase), "values": values, "optimizer": optimizer.state_dict()}
