"""A recovery that can be interrupted: what it takes to go on from there."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

from torch import Tensor

from .memory import Level, MemoryPlan
from .train import Phase


@dataclass(frozen=True)
class Saved:
    """How far a recovery has come.

    Args:
        plan: of memory, which fixes the groups of blocks.
        seconds: that it has taken.
        finished: what earlier groups became, by name.
        before: held-out loss at the start of the first group.
        steps: of earlier groups.
        group: position of the group that is trained.
        phase: fields of its :class:`Phase`; empty where it has not begun.
    """

    plan: MemoryPlan
    seconds: float = 0.0
    finished: dict[str, Tensor] = field(default_factory=dict)
    before: float | None = None
    steps: int = 0
    group: int = 0
    phase: dict[str, Any] = field(default_factory=dict)

    def within(self, phase: dict[str, Any], seconds: float) -> Self:
        """In the middle of a group."""
        return replace(self, phase=phase, seconds=seconds)

    def after(self, phase: Phase, seconds: float) -> Self:
        """At the end of a group."""
        return replace(
            self,
            seconds=seconds,
            finished={**self.finished, **phase.kept},
            before=phase.before if self.before is None else self.before,
            steps=self.steps + phase.step,
            group=self.group + 1,
            phase={},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, which ``torch.save`` stores and ``torch.load(weights_only=True)`` reads."""
        plan = {
            "level": self.plan.level.name,
            "checkpointed": self.plan.checkpointed,
            "groups": [[group.start, group.stop] for group in self.plan.groups],
        }
        return {**vars(self), "plan": plan}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What :meth:`to_dict` gave ``values`` for."""
        plan = values["plan"]
        groups = [range(start, stop) for start, stop in plan["groups"]]
        return cls(**{**values, "plan": MemoryPlan(Level[plan["level"]], plan["checkpointed"], groups)})
