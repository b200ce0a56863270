"""Recovery as the last phase of a run: the dense model's answers before the loop over blocks, training after it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from optimum_si.algorithms.recovery.recover import Recovered, recover
from optimum_si.algorithms.recovery.references import References
from optimum_si.config.recovery import RecoveryConfig
from optimum_si.models.structure import Structure
from optimum_si.report.recovery import RecoveryReport

from .plan import Plan


def dense_references(plan: Plan, windows: Sequence[dict[str, Tensor]], padding_id: int) -> References | None:
    """What the model, still dense, answers for the windows of its recovery; None in a run without one.

    Args:
        plan: of the run; its model is in evaluation mode, without a cache.
        windows: of the recovery.
        padding_id: token that fills shorter windows.

    Raises:
        CalibrationError: for fewer than two windows.
    """
    config = plan.config.recovery
    if config is None or not plan.write:
        return None
    return References.of(plan.model, windows, config.batch_size, plan.config.seed, padding_id, config.hidden_weight)


def recovered(plan: Plan, references: References | None, progress: bool) -> RecoveryReport | None:
    """Train the model, pruned, towards these answers; None in a run without recovery.

    Args:
        plan: of the run.
        references: what :func:`dense_references` gave.
        progress: whether to show a bar.
    """
    config = plan.config.recovery
    if config is None or references is None:
        return None
    return train_as_whole(
        plan.model, plan.structure, references, config, plan.config.quantization != "none", progress=progress
    )


def train_as_whole(
    model: Any,
    structure: Structure,
    references: References,
    config: RecoveryConfig,
    weights_on_grid: bool,
    run: str = "",
    earlier: int = 0,
    **options: Any,
) -> RecoveryReport:
    """Recover a model and say what came of it.

    Args:
        model: pruned.
        structure: of the model.
        references: windows with the dense model's answers.
        config: how.
        weights_on_grid: leave weights alone, which are on a grid.
        run: what tells whether a later recovery asks for the same.
        earlier: windows of the calibration data that earlier recoveries asked for.
        options: for :func:`optimum_si.algorithms.recovery.recover.recover`.
    """
    result: Recovered = recover(model, structure, references, config, weights_on_grid=weights_on_grid, **options)
    return RecoveryReport(
        windows=len(references.windows),
        tokens=references.num_tokens,
        held_out=len(references.steps.held_out),
        epochs=config.epochs,
        steps=result.steps,
        trains="norms" if weights_on_grid else config.trains,
        loss_before=result.before,
        loss_after=result.after,
        seconds=result.seconds,
        memory=result.memory,
        ended=result.ended,
        drawn=earlier + config.num_samples,
        run="" if result.after is None else run,  # which may fit elsewhere, or later
    )
