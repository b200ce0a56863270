"""User's data -> examples: the one function that a run calls."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optimum_si.config.groups import CalibrationConfig
from optimum_si.errors import CalibrationError
from optimum_si.warnings import warn

from .chats import rendered
from .examples import tokenized_examples
from .lazy_rows import LazyRows
from .pairs import paired_rows, target_labels, with_labels
from .processing import processed_rows
from .reader import Reader
from .rows import Source
from .sources import load_source
from .windows import Windower, framed_documents, one_window_per_document, packed_windows, windows_at_random_starts


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The published data sets come with the papers' own way to draw windows.
PUBLISHED_DRAWS = {"wikitext2": windows_at_random_starts, "c4": one_window_per_document}

NO_TOKENIZER = (
    "The calibration data is text and there is no tokenizer: give the model's tokenizer (--tokenizer), or tokenize "
    "the data first (a list of dicts with 'input_ids')."
)


def prepare_examples(
    dataset: Any,
    config: CalibrationConfig,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    max_length: int | None = None,
    reader: Reader | None = None,
) -> list[dict[str, Tensor]]:
    """Calibration examples from texts, conversations, images, sounds or tokenized data.

    Text becomes at most ``config.num_samples`` full windows of ``min(config.sequence_length, max_length,
    tokenizer.model_max_length)`` tokens, the same ones for the same seed; for encoders (a tokenizer with cls and sep
    tokens) it becomes single documents of at most that length, as many as hold the same number of tokens.
    Conversations become text by the tokenizer's chat template. Of images and sounds, which data sets keep sorted by
    class, ``config.num_samples`` are drawn with the seed and given to the model's processor. Of tokenized data, and of
    texts with targets, the first ``config.num_samples`` examples are used as they are.

    Args:
        dataset: a Hub name ("wikitext2" and "c4" are the splits of the pruning papers), a local file, folder or
            glob (of texts or of images), a list of strings, of PIL images or of conversations, a
            ``datasets.Dataset`` or a stream of it, a ``torch`` Dataset or DataLoader, or tokenized data: an integer
            tensor [N, T], a mapping of batched values, or a list of tensors ([T] or [n, T]), of lists of ints or of
            mappings. None means ``config.dataset``.
        config: how many windows, how long, which column and split, which seed.
        tokenizer: needed for texts only.
        max_length: longest input of the model, in tokens; None when it has no limit.
        reader: what the model reads, and its processor; None for any model.

    Returns:
        Dicts of tensors with a leading dimension of 1 (but for patches of several images): ``input_ids`` and
        ``attention_mask`` are int64 [1, T], the
        other entries of tokenized examples keep their dtype. Rows without ``input_ids`` keep only what they have.

    Raises:
        CalibrationError: there is no data, too little of it, it cannot be read, it is text and there is no tokenizer,
            an example is longer than ``max_length``, or nothing of it is what the model reads.
    """
    reader = reader or Reader()
    dataset = config.dataset if dataset is None else dataset
    if dataset is None:
        raise CalibrationError(
            "There is no calibration data: give a dataset (a Hub name such as 'wikitext2', a local file, folder or "
            "glob, a list of strings, a datasets.Dataset or tokenized examples) or set calibration.dataset."
        )
    source = load_source(dataset, config, reader=reader)
    if config.target_column is not None and not reader.decodes:
        raise CalibrationError(
            f"calibration.target_column={config.target_column!r} is read by the decoder of an encoder-decoder, and "
            f"{reader.name} is none: leave it out."
        )
    if not source.is_text:
        examples = _examples(source, config, tokenizer, max_length, reader)
        reader.check(examples[0])
        return examples
    if tokenizer is None:
        raise CalibrationError(NO_TOKENIZER)
    documents = texts_of(source, tokenizer)
    windower = Windower.for_tokenizer(tokenizer, config.sequence_length, max_length)
    windows = draw_for(dataset, windower)(documents, windower, config.num_samples, config.seed)
    filled = sum(window.numel() for window in windows) // windower.length
    if filled < config.num_samples:
        warn(
            f"The calibration text fills {filled} windows of {windower.length} tokens, fewer than "
            f"num_samples={config.num_samples}: all of it is used.",
            UserWarning,
        )
    return as_examples(windows)


def texts_of(source: Source, tokenizer: "PreTrainedTokenizerBase") -> Sequence[str | None]:
    """The documents of a source of text; conversations are rendered when they are asked for."""
    return source.rows if source.kind == "text" else rendered(source.rows, tokenizer)


def _examples(
    source: Source,
    config: CalibrationConfig,
    tokenizer: "PreTrainedTokenizerBase | None",
    max_length: int | None,
    reader: Reader,
) -> list[dict[str, Tensor]]:
    """The examples of data from which no windows are drawn."""
    count, target = config.num_samples, config.target_column
    length = min(config.sequence_length, max_length or config.sequence_length)
    if source.kind == "pairs":
        if tokenizer is None:
            raise CalibrationError(NO_TOKENIZER)
        assert target is not None
        windower = Windower.for_tokenizer(tokenizer, config.sequence_length, max_length)
        return tokenized_examples(paired_rows(source.rows, source.columns, target, tokenizer, windower), count=count)
    if source.kind == "media":
        total = len(source.rows)
        # The order of all, so that more of them begin with fewer of them.
        order = random.Random(config.seed).sample(range(total), total)[:count]
        source = replace(source, rows=LazyRows(order, source.rows.__getitem__))
        rows: Iterable[Any] = processed_rows(source, reader, tokenizer, length)
    else:
        rows = source.rows
    if target is not None:
        owned = getattr(reader.processor, "tokenizer", None) or tokenizer
        labels = (target_labels(row, target, owned, length, index) for index, row in enumerate(source.rows))
        rows = (with_labels(row, ids) for row, ids in zip(rows, labels, strict=False))
    return tokenized_examples(rows, max_length, count, reader.main_input, reader.numbers)


def draw_for(dataset: Any, windower: Windower) -> Callable[..., list[Tensor]]:
    """How windows are drawn from the texts of a dataset."""
    by_default = framed_documents if windower.prefix else packed_windows
    return PUBLISHED_DRAWS.get(dataset, by_default) if isinstance(dataset, str) else by_default


def as_examples(windows: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Windows of tokens, int64 [1, T], as examples without padding."""
    return [{"input_ids": window, "attention_mask": torch.ones_like(window)} for window in windows]
