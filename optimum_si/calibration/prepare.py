"""User's data -> examples: the one function that a run calls."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optimum_si.config.groups import CalibrationConfig
from optimum_si.errors import CalibrationError
from optimum_si.warnings import warn

from .examples import tokenized_examples
from .sources import load_source
from .windows import Windower, framed_documents, one_window_per_document, packed_windows, windows_at_random_starts


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The published data sets come with the papers' own way to draw windows.
PUBLISHED_DRAWS = {"wikitext2": windows_at_random_starts, "c4": one_window_per_document}


def prepare_examples(
    dataset: Any,
    config: CalibrationConfig,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    max_length: int | None = None,
) -> list[dict[str, Tensor]]:
    """Calibration examples from texts or tokenized data.

    Text becomes at most ``config.num_samples`` full windows of ``min(config.sequence_length, max_length,
    tokenizer.model_max_length)`` tokens, the same ones for the same seed; for encoders (a tokenizer with cls and sep
    tokens) it becomes single documents of at most that length, as many as hold the same number of tokens. Tokenized
    data is used as it is.

    Args:
        dataset: a Hub name ("wikitext2" and "c4" are the splits of the pruning papers), a local file, folder or
            glob, a list of strings, a ``datasets.Dataset``, or tokenized data: an integer tensor [N, T], a mapping of
            batched values, or a list of tensors ([T] or [n, T]), of lists of ints or of mappings. None means
            ``config.dataset``.
        config: how many windows, how long, which column and split, which seed.
        tokenizer: needed for texts only.
        max_length: longest input of the model, in tokens; None when it has no limit.

    Returns:
        Dicts of tensors with a leading dimension of 1: ``input_ids`` and ``attention_mask`` are int64 [1, T], the
        other entries of tokenized examples keep their dtype. Rows without ``input_ids`` keep only what they have.

    Raises:
        CalibrationError: there is no data, too little of it, it cannot be read, it is text and there is no tokenizer,
            or an example is longer than ``max_length``.
    """
    dataset = config.dataset if dataset is None else dataset
    if dataset is None:
        raise CalibrationError(
            "There is no calibration data: give a dataset (a Hub name such as 'wikitext2', a local file, folder or "
            "glob, a list of strings, a datasets.Dataset or tokenized examples) or set calibration.dataset."
        )
    source = load_source(dataset, config)
    if not source.is_text:
        return tokenized_examples(source.rows, max_length)
    if tokenizer is None:
        raise CalibrationError(
            "The calibration data is text and there is no tokenizer: give the model's tokenizer (--tokenizer), or "
            "tokenize the data first (a list of dicts with 'input_ids')."
        )
    windower = Windower.for_tokenizer(tokenizer, config.sequence_length, max_length)
    windows = draw_for(dataset, windower)(source.rows, windower, config.num_samples, config.seed)
    filled = sum(window.numel() for window in windows) // windower.length
    if filled < config.num_samples:
        warn(
            f"The calibration text fills {filled} windows of {windower.length} tokens, fewer than "
            f"num_samples={config.num_samples}: all of it is used.",
            UserWarning,
        )
    return as_examples(windows)


def draw_for(dataset: Any, windower: Windower) -> Callable[..., list[Tensor]]:
    """How windows are drawn from the texts of a dataset."""
    by_default = framed_documents if windower.prefix else packed_windows
    return PUBLISHED_DRAWS.get(dataset, by_default) if isinstance(dataset, str) else by_default


def as_examples(windows: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Windows of tokens, int64 [1, T], as examples without padding."""
    return [{"input_ids": window, "attention_mask": torch.ones_like(window)} for window in windows]
