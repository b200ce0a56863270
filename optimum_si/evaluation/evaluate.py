"""Perplexity, zero-shot accuracy and measured sparsity, of one model or several."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from optimum_si.checkpoint.load import load_tokenizer
from optimum_si.config.groups import CalibrationConfig

from .keep import keep_results
from .opening import Evaluable, open_model
from .options import check_options
from .perplexity import evaluation_texts, max_evaluation_windows, perplexity
from .results import Evaluation, Evaluations
from .tasks import load_tasks, task_accuracy


def evaluate(
    models: Evaluable | Sequence[Evaluable],
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    *,
    dataset: Any = None,
    dataset_config: str | None = None,
    split: str | None = None,
    column: str | None = None,
    sequence_length: int | None = None,
    max_windows: int | None = None,
    tasks: str | Sequence[str] | None = None,
    task_folder: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    gguf_file: str | None = None,
    trust_remote_code: bool = False,
    save: bool = False,
    progress: bool = True,
) -> Evaluations:
    """Measure causal language models: perplexity on held-out text, accuracy on tasks of lm-eval, and zeros.

    Zeros are counted from the weights that pruning treats, whether or not it did. Models are loaded one after another,
    once the data has been read.

    Args:
        models: one or several: Hub ids, directories of checkpoints or of exports, GGUF files, or loaded models.
        tokenizer: tokenizer of all models, or where to load it; None loads the one that lies beside each of them.
        dataset: held-out text, as :func:`evaluation_texts` takes it: "wikitext2", "c4", another Hub dataset, local
            files, or a list of texts. None measures no perplexity.
        dataset_config: configuration of a Hub dataset.
        split: split of a Hub dataset; None is "test".
        column: text column; None finds it.
        sequence_length: tokens of a window; None is 2048 or what the model accepts, whichever is smaller.
        max_windows: windows to use, from the first on; None is all, and 256 of "c4".
        tasks: "zero-shot" for those of the pruning papers, or names of lm-eval. None measures no accuracy.
        task_folder: directory with YAML files of tasks of the user's own.
        limit: examples of each task to use, from the first on; None is all.
        batch_size: windows, or answers to a task, that pass through a model together.
        dtype: dtype of the weights of checkpoints; None is as saved. Loaded models and exports stay as they are.
        device: where to compute, such as "cuda"; None is the CPU, or where a loaded model is.
        gguf_file: name of a GGUF file in the first model's directory or repository.
        trust_remote_code: run Python code that comes with a model.
        save: keep the numbers in the directories that ``prune`` wrote, and write their model cards anew unless they
            were edited.
        progress: show progress bars.

    Returns:
        A list with an :class:`Evaluation` for each model, which has a ``table()`` and a ``to_dict()``; its
        ``saved_in`` names the directories whose cards show the numbers.

    Raises:
        CalibrationError: the dataset cannot be read or is too short, or a model has no tokenizer for it.
        CheckpointError: a model cannot be read, an export is damaged, or numbers cannot be saved.
        ConfigurationError: nothing is measured, an option belongs to a measurement that is not made, a number is out
            of range, or a task is unknown.
        NumericalError: a loss is NaN or infinite.
        ProviderError: ONNX Runtime lacks the provider of ``device``.
        TaskError: lm-eval is missing, or a task's data or metric is.
        UnsupportedModelError: a model predicts no next tokens, or is of an architecture that cannot be pruned.
    """
    given = list(models) if isinstance(models, Sequence) and not isinstance(models, str) else [models]
    options = {"dataset": dataset, "dataset_config": dataset_config, "split": split, "column": column}
    options |= {"sequence_length": sequence_length, "max_windows": max_windows}
    options |= {"tasks": tasks, "task_folder": task_folder, "limit": limit, "save": save}
    check_options(given, options)

    # Data is read first: a mistyped name should not cost the loading of a model.
    data = CalibrationConfig(dataset_config=dataset_config, split=split, column=column)
    texts = None if dataset is None else evaluation_texts(dataset, data)
    loaded_tasks = load_tasks(tasks, task_folder) if tasks else None
    windows = max_evaluation_windows(dataset) if max_windows is None else max_windows
    dataset_name = str(dataset) if isinstance(dataset, (str, Path)) else None if dataset is None else "text"

    if isinstance(tokenizer, (str, Path)):
        tokenizer = load_tokenizer(tokenizer, required=True, trust_remote_code=trust_remote_code)

    def measured(model: Evaluable, **place: Any) -> Evaluation:
        """What was asked for of one model, which is freed before the next one is loaded."""
        opened = open_model(model, tokenizer, dtype, device, trust_remote_code, **place)
        value, scores = None, {}
        if texts is not None:
            value = perplexity(
                opened.model, opened.tokenizer, texts, sequence_length, batch_size, progress, max_windows=windows
            )
        if loaded_tasks is not None:
            scores = task_accuracy(
                opened.model,
                opened.tokenizer,
                loaded_tasks,
                limit=limit,
                batch_size=batch_size,
                progress=progress,
            )
        return Evaluation(opened.name, opened.runtime, opened.sparsity, dataset_name, value, scores)

    named = {} if gguf_file is None else {"gguf_file": gguf_file}
    evaluations = [measured(given[0], **named), *map(measured, given[1:])]
    saved_in = keep_results(evaluations, sequence_length, max_windows) if save else []
    return Evaluations(evaluations, saved_in)
