"""What evaluating a model found, and several models side by side."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from optimum_si.report import format_table

from .tasks import ZERO_SHOT_TASKS, TaskScore, mean_score


#: Metrics that are printed in percent, as papers do.
_PERCENTAGES = ("acc", "acc_norm", "exact_match")


@dataclass(frozen=True)
class Evaluation:
    """What was measured of one model.

    Args:
        model: Hub id or directory.
        runtime: "PyTorch" or "ONNX Runtime".
        sparsity: fraction of zeros in the linear layers of the transformer blocks.
        dataset: dataset that perplexity was taken on; None where it was not.
        perplexity: perplexity on ``dataset``.
        tasks: scores by name of the task.
    """

    model: str
    runtime: str
    sparsity: float
    dataset: str | None = None
    perplexity: float | None = None
    tasks: dict[str, TaskScore] = field(default_factory=dict)

    @property
    def mean(self) -> TaskScore | None:
        """Over the tasks, where there are several with one metric."""
        return mean_score(self.tasks) if len(self.tasks) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """What was measured, for JSON."""
        result: dict[str, Any] = {"model": self.model, "runtime": self.runtime}
        if self.perplexity is not None:
            result |= {"dataset": self.dataset, "perplexity": self.perplexity}
        result["sparsity"] = self.sparsity
        if self.tasks:
            result["tasks"] = {name: score.to_dict() for name, score in self.tasks.items()}
            result["mean"] = None if self.mean is None else self.mean.to_dict()
        return result


class Evaluations(list[Evaluation]):
    """What was measured of several models on the same data; the first is what others are compared with.

    Args:
        evaluations: one for each model, in the order in which they were given.
        saved_in: directories whose model cards show the numbers.
    """

    def __init__(self, evaluations: Iterable[Evaluation], saved_in: Sequence[Path] = ()) -> None:
        super().__init__(evaluations)
        self.saved_in = list(saved_in)

    def to_dict(self) -> list[dict[str, Any]]:
        """What was measured of each model, for JSON."""
        return [evaluation.to_dict() for evaluation in self]

    def table(self) -> str:
        """A line for each measurement and a column for each model, with what changed from the first."""
        return _comparison_table(self)


def _comparison_table(evaluations: Sequence[Evaluation]) -> str:
    first = evaluations[0]
    names = _short_names([evaluation.model for evaluation in evaluations])
    rows = [["sparsity", *(f"{evaluation.sparsity:.2%}" for evaluation in evaluations)]]
    notes = []
    if first.perplexity is not None:
        rows.append(["perplexity", *_cells([evaluation.perplexity for evaluation in evaluations], _perplexity)])
        notes.append(f"Perplexity on {first.dataset}" + (f", and its ratio to {names[0]}." if names[1:] else "."))
    for name, score in first.tasks.items():
        label = f"{name} ({score.metric})"
        rows.append([label, *_cells([evaluation.tasks[name] for evaluation in evaluations], _score)])
    if first.mean is not None:
        rows.append([f"mean of {len(first.tasks)} tasks", *_cells([one.mean for one in evaluations], _score)])
    if first.tasks:
        points = f", and the difference to {names[0]} in points" if names[1:] else ""
        notes.append(f"Accuracy in percent, its standard error{points}.")
    if set(ZERO_SHOT_TASKS) <= set(first.tasks):
        notes.append("Papers leave out some of these tasks (often one): compare means of the same tasks only.")
    return "\n".join([format_table(["", *names], rows), *notes])


def _cells(values: Sequence[Any], text: Callable[[Any, Any], str]) -> list[str]:
    """Texts of values, all but the first with what changed from it."""
    return [text(value, None if index == 0 else values[0]) for index, value in enumerate(values)]


def _perplexity(value: Any, base: Any) -> str:
    return f"{value:.4g}" if base is None else f"{value:.4g} ({value / base:.3f} x)"


def _score(score: Any, base: Any) -> str:
    scale, digits = (100, 1) if score.metric in _PERCENTAGES else (1, 4)
    error = "" if score.stderr is None else f" ± {score.stderr * scale:.{digits}f}"
    change = "" if base is None else f" ({(score.value - base.value) * scale:+.{digits}f})"
    return f"{score.value * scale:.{digits}f}{error}{change}"


def _short_names(models: Sequence[str]) -> list[str]:
    """The last part of each name, or the whole names where parts are alike."""
    short = [PurePath(model).name or model for model in models]
    return short if len(set(short)) == len(short) else list(models)
