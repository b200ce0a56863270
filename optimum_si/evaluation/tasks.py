"""Accuracy on tasks of lm-eval: the zero-shot protocol of the pruning papers, and tasks of the user's own."""

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from copy import deepcopy
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from optimum_si.config.validators import check_integer
from optimum_si.errors import CalibrationError, ConfigurationError, TaskError, reason_of
from optimum_si.models.forward.modes import evaluation_mode

from .perplexity import check_predicts_next_tokens


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM

#: Stands for :data:`ZERO_SHOT_TASKS`.
ZERO_SHOT = "zero-shot"
#: Of the Wanda paper. Others leave one out, mostly OpenBookQA or RTE, so their means are not comparable with this one.
ZERO_SHOT_TASKS = ("boolq", "rte", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
#: What is reported where a task has several metrics: pruning papers print plain accuracy.
METRIC = "acc"
#: Draws the examples that tasks show before the question, where they show some.
_SEED = 1234
#: Resamplings for the standard error of metrics that have no formula for it.
_RESAMPLINGS = 1000


@dataclass(frozen=True)
class TaskScore:
    """What a model reached on a task.

    Args:
        metric: lm-eval's name of the metric: "acc", or the first metric of a task that has none.
        value: value of the metric; accuracies are in [0, 1].
        stderr: standard error of ``value``; None where lm-eval gives none.
        examples: number of examples that were answered.
    """

    metric: str
    value: float
    stderr: float | None
    examples: int

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class LoadedTasks:
    """Tasks with their data, by the name that was asked for; good for several models."""

    tasks: Mapping[str, Any]


def task_accuracy(
    model: "PreTrainedModel | ORTSIModelForCausalLM",
    tokenizer: "PreTrainedTokenizerBase | None",
    tasks: str | Sequence[str] | LoadedTasks = ZERO_SHOT,
    *,
    folder: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> dict[str, TaskScore]:
    """Scores of a causal language model on tasks of lm-eval, each by its name; :func:`mean_score` takes their mean.

    Log-likelihoods are taken in float32, whatever the dtype of the model. The model's mode is left as it was.

    Args:
        model: a causal language model of PyTorch, on any device, or exported.
        tokenizer: the model's own.
        tasks: "zero-shot" for those of the pruning papers, or names of tasks, groups or tags; or what
            :func:`load_tasks` gave.
        folder: holds YAML files of tasks of the user's own.
        limit: use only the first so many examples of each task.
        batch_size: answers that pass through the model together.
        progress: show progress bars.

    Raises:
        CalibrationError: there is no tokenizer, or it marks neither the beginning nor the end of a text.
        ConfigurationError: a task is unknown, or a number is out of range.
        TaskError: lm-eval is missing, or a task's data or metric is.
        UnsupportedModelError: the model predicts no next tokens.
    """
    check_integer("batch_size", batch_size, 1)
    if limit is not None:
        check_integer("limit", limit, 1)
    check_predicts_next_tokens(model)
    _check_tokenizer(tokenizer)
    loaded = tasks if isinstance(tasks, LoadedTasks) else load_tasks(tasks, folder)
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(evaluation_mode(model) if isinstance(model, torch.nn.Module) else nullcontext())
        if not progress:
            # lm-eval has no switch for its progress bars, which look for stderr when they start.
            stack.enter_context(redirect_stderr(stack.enter_context(open(os.devnull, "w"))))
        harness = _harness()
        # A copy, since lm-eval chooses a padding token for a tokenizer without one.
        runner = harness.HFLM(
            pretrained=model, tokenizer=deepcopy(tokenizer), batch_size=batch_size, softmax_dtype="float32"
        )
        scores: dict[str, TaskScore] = {}
        for name, task in loaded.tasks.items():
            results = harness.evaluate(runner, task, limit=limit, bootstrap_iters=_RESAMPLINGS, log_samples=False)
            scores |= _scores(name, results["results"], list(task["tasks"]))
    return scores


def load_tasks(tasks: str | Sequence[str] = ZERO_SHOT, folder: str | Path | None = None) -> LoadedTasks:
    """Tasks with their data, which comes from the Hub where lm-eval's own are asked for; see :func:`task_accuracy`."""
    harness = _harness()
    if folder is not None and not Path(folder).is_dir():
        raise ConfigurationError(f"task folder {str(folder)!r} is no directory: give one with YAML files of tasks.")
    with _quiet():
        manager = harness.TaskManager(include_path=None if folder is None else str(folder))
        names = _task_names(tasks)
        if unknown := [name for name in names if name not in manager.all_tasks]:
            raise ConfigurationError(_unknown(unknown[0], manager.all_tasks))
        return LoadedTasks({name: _load(manager, name) for name in names})


def mean_score(scores: Mapping[str, TaskScore]) -> TaskScore | None:
    """The mean over tasks, each with the same weight; None where they have not one metric."""
    values = list(scores.values())
    if len({score.metric for score in values}) != 1:
        return None
    errors = [score.stderr for score in values if score.stderr is not None]
    # Tasks are independent of each other.
    stderr = math.hypot(*errors) / len(values) if len(errors) == len(values) else None
    mean = sum(score.value for score in values) / len(values)
    return TaskScore(values[0].metric, mean, stderr, sum(score.examples for score in values))


def _check_tokenizer(tokenizer: "PreTrainedTokenizerBase | None") -> None:
    if tokenizer is None:
        raise CalibrationError("Tasks are text and there is no tokenizer: give the one that belongs to the model.")
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise CalibrationError(
            "The tokenizer marks neither the beginning nor the end of a text, and lm-eval needs one of them: set its "
            "bos_token or eos_token."
        )


def _task_names(tasks: str | Sequence[str]) -> list[str]:
    given = [tasks] if isinstance(tasks, str) else list(tasks)
    names = [name for task in given for name in (ZERO_SHOT_TASKS if task == ZERO_SHOT else (task,))]
    if not names:
        raise ConfigurationError(f'no task is given: give "{ZERO_SHOT}", or names of tasks.')
    return list(dict.fromkeys(names))


def _unknown(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, [ZERO_SHOT, *known], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f'"{ZERO_SHOT}" stands for those of the pruning papers.'
    return f"task {name!r} is unknown to lm-eval: {hint} Tasks of your own are found in their folder (--task-folder)."


def _load(manager: Any, name: str) -> Any:
    try:
        loaded = manager.load([name])
    except Exception as error:  # of lm-eval, datasets or the network, whatever is missing
        reason = reason_of(error)
        raise TaskError(
            f"task {name!r} cannot be loaded: {reason}. Its data comes from the Hub unless the task names local "
            "files; with HF_HUB_OFFLINE=1 only what is in the cache is found."
        ) from error
    for task_name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise TaskError(f"task {task_name!r} runs code that the model writes: run it with lm-eval itself.")
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_SEED)
    return loaded


def _scores(name: str, results: Mapping[str, Mapping[str, Any]], parts: list[str]) -> dict[str, TaskScore]:
    """The score of a task or group; of each part where ``name`` is a tag, or a group without a metric of its own."""
    names = [name] if _metrics(results.get(name, {})) else parts
    return {part: _score(part, results[part]) for part in names}


def _score(name: str, result: Mapping[str, Any]) -> TaskScore:
    metrics = _metrics(result)
    if not metrics:
        raise TaskError(f"task {name!r} gave no metric: name one in its metric_list, such as acc.")
    key = next((key for key in metrics if key.split(",")[0] == METRIC), metrics[0])
    metric, filter_name = key.split(",", 1)
    stderr = result.get(f"{metric}_stderr,{filter_name}")
    value = float(result[key])
    return TaskScore(
        metric, value, float(stderr) if isinstance(stderr, (int, float)) else None, int(result.get("sample_len", 0))
    )


def _metrics(result: Mapping[str, Any]) -> list[str]:
    """Keys such as "acc,none", which name a metric and a filter, in the order of the task."""
    keys = [key for key, value in result.items() if "," in key and isinstance(value, (int, float))]
    return [key for key in keys if not key.split(",")[0].endswith("_stderr")]


def _harness() -> SimpleNamespace:
    """What is used of lm-eval.

    Raises:
        TaskError: when it is missing.
    """
    try:
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise TaskError(f'tasks need lm-eval ({error}): pip install "optimum-si[eval]".') from error
    return SimpleNamespace(evaluate=evaluate, HFLM=HFLM, TaskManager=TaskManager)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's advice to those who write tasks or start it on several GPUs."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
