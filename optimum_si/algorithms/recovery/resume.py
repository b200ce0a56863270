"""Whether what was saved of a recovery is of this model: a file may be damaged, or written by somebody else."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from .memory import Level
from .state import Saved
from .train import Phase, optimizer_of
from .trained import Trained


#: What optimizers keep of a parameter, by their level and whether it is a matrix.
_ADAM, _MATRIX, _VECTOR = {"step", "exp_avg", "exp_avg_sq"}, {"step", "row_var", "col_var"}, {"step", "variance"}


def check_course(saved: Saved, blocks: int, steps: int) -> None:
    """Whether a recovery of so many blocks, in so many steps for each group of them, can have come so far.

    Raises:
        ValueError: says what cannot be.
    """
    plan, phase = saved.plan, saved.phase
    ends = [group.stop for group in plan.groups]
    _require(
        all(plan.groups) and [group.start for group in plan.groups] == [0, *ends[:-1]] and ends[-1:] == [blocks],
        "its groups are not the model's blocks",
    )
    _require(plan.level is Level.GROUPS or len(ends) == 1 and plan.level is not Level.OFF, "its level has no groups")
    _require(_is_count(plan.checkpointed, blocks), "it has other blocks")
    _require(_is_count(saved.group, len(ends) - 1), "it is in no group")
    _require(_is_count(saved.steps, steps * saved.group), "it has done other steps")
    _require(_is_number(saved.seconds), "it has taken no time")
    _require(isinstance(saved.finished, dict) and bool(saved.finished) == (saved.group > 0), "it has finished others")
    _require(_is_number(saved.before) if saved.group else saved.before is None, "its loss is no number")
    if not phase:
        return
    _require(set(phase) == {field.name for field in fields(Phase)}, "it holds other fields")
    _require(_is_count(phase["step"], steps), "it has done other steps")
    _require(all(_is_number(phase[name]) for name in ("before", "best", "begun")), "its loss is no number")
    _require(phase["best"] <= phase["before"] and phase["ended"] in ("", "time", "NaN"), "it ended as none does")
    _require(all(_is_number(rate) for rate in phase["rates"]), "its learning rates are no numbers")


def check_values(values: Mapping[str, Tensor], trained: Trained, stored: bool) -> None:
    """Whether saved values can take the place of those that are trained, with the same zeros.

    Args:
        values: by name.
        trained: as it is before the recovery.
        stored: whether they are in the dtype that is stored, and not as they are trained.

    Raises:
        ValueError: names the parameter.
    """
    for name, value in trained.values.items():
        found = values[name]
        _require(
            _is_like(found, value.shape) and found.dtype == (trained.dtypes[name] if stored else value.dtype),
            f"{name} has another shape or dtype, or is not finite",
        )
        found, kept = found.to(value.device), value.detach()
        if name in trained.scales.views:  # what the factors make of the weights
            kept = trained.scales.views[name].read()
            found = (kept * found[:, None]).to(trained.scales.dtypes[name])
            _require(bool(torch.isfinite(found).all()), f"{name} is not finite")
        _require(kept.ndim < 2 or bool(((found == 0) == (kept == 0)).all()), f"{name} has other zeros")


def check_optimizer(saved: Mapping[str, Any], trained: Trained, level: Level, learning_rate: float) -> None:
    """Whether the state of an optimizer is that of these parameters.

    Raises:
        ValueError: says what is not.
    """
    fresh = optimizer_of(level, trained, learning_rate).state_dict()
    groups = [
        {**new, "lr": group["lr"]} for new, group in zip(fresh["param_groups"], saved["param_groups"], strict=True)
    ]
    _require(groups == saved["param_groups"], "its optimizer has other options")
    _require(all(_is_number(group["lr"]) for group in groups), "its learning rates are no numbers")
    shapes = [tuple(value.shape) for value in trained.values.values()]
    for index, entry in saved["state"].items():
        shape = shapes[index]
        names = _ADAM if level is not Level.ADAFACTOR else _MATRIX if len(shape) > 1 else _VECTOR
        _require(set(entry) == names, "its optimizer keeps other values")
        for name, value in entry.items():
            wanted = {"step": (), "row_var": (*shape[:-1], 1), "col_var": (*shape[:-2], 1, *shape[-1:])}
            _require(
                _is_like(value, wanted.get(name, shape)) and (name == "exp_avg" or bool((value >= 0).all())),
                f"its optimizer's {name} has another shape, or is not finite",
            )


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_number(value: Any) -> bool:
    return type(value) is float and math.isfinite(value) and value >= 0


def _is_like(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether something is an ordinary tensor of a shape, with finite values."""
    return (
        type(value) is Tensor
        and value.layout is torch.strided
        and value.device.type != "meta"
        and value.is_floating_point()
        and tuple(value.shape) == tuple(shape)
        and bool(torch.isfinite(value).all())
    )
