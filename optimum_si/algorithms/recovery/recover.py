"""Recovery of a pruned model as a whole: what is trained, how it fits into memory, and what came of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from optimum_si.algorithms.whole_model.passing import (
    checkpointed,
    fast_products,
    has_fast_products,
    only_trained,
    tried_in_fast_products,
    widened_alone,
)
from optimum_si.config.recovery import RecoveryConfig
from optimum_si.models.forward.modes import evaluation_mode, widened, without_cache
from optimum_si.models.structure import Structure
from optimum_si.warnings import warn

from .memory import Demand, Level, MemoryPlan, activations_of, free_memory
from .references import References
from .resume import check_course, check_optimizer, check_values
from .row_scales import RowScales
from .state import Saved
from .train import Clock, Phase, train
from .trained import Trained, norms_outside, parameters_of_blocks, pruned_views


#: How far the loss in narrower products may be from that in fp32, relative to it, or to this much where it is less.
TOLERANCE, SMALL_LOSS = 0.01, 0.01

Save = Callable[[Callable[[], Saved]], None]


@dataclass(frozen=True)
class Recovered:
    """What a recovery did.

    Args:
        steps: done in all.
        before, after: mean distance from the dense model's answers on held-out windows: KL per token for logits, else
            relative squared error; None where recovery was off for want of memory.
        seconds: wall time, over all calls that it was resumed in.
        memory: how it fitted into memory, in words.
        ended: why it stopped early: "time" or "NaN"; "" where it did not.
    """

    steps: int
    before: float | None
    after: float | None
    seconds: float
    memory: str
    ended: str = ""


def recover(
    model: nn.Module,
    structure: Structure,
    references: References,
    config: RecoveryConfig,
    *,
    weights_on_grid: bool = False,
    progress: bool = False,
    free: int | None = None,
    resume: Saved | None = None,
    save: Save | None = None,
) -> Recovered:
    """Train a pruned model in place towards the dense model's answers; every zero stays.

    The result is never worse than the start on the held-out windows, in the dtype in which it is stored.

    Args:
        model: pruned.
        structure: of the model.
        references: windows with the dense model's answers.
        config: how.
        weights_on_grid: leave weights alone, which are on a grid.
        progress: whether to show a bar.
        free: bytes that may be used; None asks the machine.
        resume: where an earlier call stopped, with the model as it was before that call; what is not of this model
            is passed over.
        save: is given, after every step, a function that makes what ``resume`` takes.

    Raises:
        UnsupportedModelError: for models whose answers for a window depend on the others of its batch.
    """
    trains = "norms" if weights_on_grid else config.trains
    with evaluation_mode(model), without_cache(model):
        job = _Job(model, structure, references.for_model(model), config, trains)
        if resume is not None and (reason := job.misfit(resume)) is not None:
            warn(f"what was kept of an interrupted recovery is not of this one ({reason}): it begins anew.")
            resume = None
        plan = job.plan(free) if resume is None else resume.plan
        if plan.level is Level.OFF:
            warn(
                f"recovery is off: it would need {plan.needed / 2**30:.1f} GiB of free memory. Give a smaller "
                "recovery.batch_size or calibration.sequence_length, or run `optimum-cli si recover` on a larger "
                "machine."
            )
            return Recovered(0, None, None, 0.0, plan.level.value)
        return job.run(resume or Saved(plan), progress, save)


def _saving(state: Saved, clock: Clock, save: Save | None) -> Callable[[Callable[[], dict[str, Any]]], None]:
    """Hands on what a group in training is saved as, with what earlier ones became."""

    def saving(make: Callable[[], dict[str, Any]]) -> None:
        if save is not None:
            save(lambda: state.within(make(), clock.seconds))

    return saving


class _Job:
    """One recovery; arguments as of :func:`recover`."""

    def __init__(
        self, model: Any, structure: Structure, references: References, config: RecoveryConfig, trains: str
    ) -> None:
        self.model, self.references, self.config = model, references, config
        self.blocks = [block.module for block in structure.blocks]
        pruned = pruned_views(structure)
        self.parts = parameters_of_blocks(structure, pruned, weights=trains == "weights")
        self.scaled = pruned if trains == "scales" else [[] for _ in pruned]
        self.others = norms_outside(model)
        self.device = next(model.parameters()).device
        self.steps = sum(len(references.steps.of_epoch(epoch)) for epoch in range(config.epochs))

    def plan(self, free: int | None) -> MemoryPlan:
        """How it fits into memory."""
        tokens = self.references.steps.together
        every = list(self.model.parameters())
        blocks = [sum(value.numel() for value in part.values()) for part in self.parts]
        others = sum(value.numel() for value in self.others.values())
        demand = Demand(
            blocks=blocks,
            others=others,
            frozen=sum(value.numel() for value in every) - sum(blocks) - others,
            itemsize=min(value.element_size() for value in every),
            activations=[activations_of(block, tokens) for block in self.blocks],
            hidden=tokens * getattr(self.model.config.get_text_config(), "hidden_size", 0),
            narrow=self.device.type == "cpu" and has_fast_products(self.device),
        )
        return demand.plan(free_memory(self.device) if free is None else free)

    def misfit(self, state: Saved) -> str | None:
        """Why this recovery cannot go on from a saved state; None where it can. The model stays as it is."""
        try:
            check_course(state, len(self.blocks), self.steps)
            for index, group in enumerate(state.plan.groups[: state.group + 1]):
                with self._trainable(state.plan, group) as trained:
                    if index < state.group:
                        check_values(state.finished, trained, stored=True)
                    elif phase := state.phase:
                        check_values(phase["kept"], trained, stored=True)
                        check_values(phase["values"], trained, stored=False)
                        check_optimizer(phase["optimizer"], trained, state.plan.level, self.config.learning_rate)
                        if len(phase["rates"]) != len(trained.values):
                            return "it has other learning rates"
        except Exception as error:  # of any kind: the values may be of any type
            return str(error) or type(error).__name__
        return None

    def run(self, state: Saved, progress: bool, save: Save | None) -> Recovered:
        """Train one group of blocks after the other; all blocks are one unless memory is short."""
        plan, minutes, ended, after = state.plan, self.config.minutes, "", None
        clock = Clock(earlier=state.seconds)
        for group in plan.groups[: state.group]:
            with self._trainable(plan, group) as trained:
                trained.restore(state.finished)
        total, done = self.steps * len(plan.groups), state.steps + state.phase.get("step", 0)
        with (
            tqdm(total=total, initial=done, desc="recover", unit="step", disable=not progress) as bar,
            checkpointed(self.blocks[: plan.checkpointed]),
        ):

            def stepped(loss: float) -> None:
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()

            for group in plan.groups[state.group :]:
                phase = Phase(**state.phase)
                if minutes is not None:  # an equal part for each group
                    clock.limit = 60 * minutes * (state.group + 1) / len(plan.groups)
                with self._trainable(plan, group) as trained, self._fast_products():
                    train(
                        self.references,
                        trained,
                        phase,
                        self.config.epochs,
                        self.config.learning_rate,
                        plan.level,
                        clock,
                        stepped,
                        _saving(state, clock, save),
                    )
                state, after, ended = state.after(phase, clock.seconds), phase.best, phase.ended
                if ended == "NaN":
                    break
        memory = plan.level.value + (", checkpointing" if plan.checkpointed else "")
        return Recovered(state.steps, state.before, after, clock.seconds, memory, ended)

    @contextmanager
    def _trainable(self, plan: MemoryPlan, group: range) -> Iterator[Trained]:
        """What is trained of some blocks, wide and with gradients for a while; then stored."""
        whole = plan.level is not Level.GROUPS
        values = dict(self.others) if whole else {}
        for index in group:
            values |= self.parts[index]
        dtypes = {name: value.dtype for name, value in values.items()}
        wide = torch.float64 if torch.float64 in dtypes.values() else torch.float32
        scales = RowScales([view for index in group for view in self.scaled[index]], wide)
        values |= scales.values
        dtypes |= dict.fromkeys(scales.values, wide)
        blocks = [self.blocks[index] for index in group]
        with (
            widened(self.model) if whole else widened_alone(blocks),
            scales.applied(),
            only_trained(self.model, values),
        ):
            yield Trained(values, dtypes, scales)
            scales.absorb()

    @contextmanager
    def _fast_products(self) -> Iterator[None]:
        """Narrower products where the machine has them and the loss hardly notices."""
        if next(self.model.parameters()).dtype != torch.float32 or not has_fast_products(self.device):
            yield
            return
        part = self.references.steps.parts(self.references.steps.held_out)[0]

        def loss() -> float:
            return float(self.references.loss(part, self.references.answered(part)))

        with fast_products(self.device, wanted=False), torch.no_grad():
            exact = loss()
        quick = tried_in_fast_products(self.device, loss)
        limit = TOLERANCE * max(exact, SMALL_LOSS * self.references.count(part))
        with fast_products(self.device, wanted=quick is not None and abs(quick - exact) <= limit):
            yield
