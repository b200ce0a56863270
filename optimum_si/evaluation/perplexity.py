"""Perplexity, by the protocol of the SparseGPT and Wanda papers."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from optimum_si.calibration.batches import make_batches
from optimum_si.calibration.examples import tokenized_examples
from optimum_si.calibration.sources import EVALUATION_SPLITS, load_texts
from optimum_si.calibration.windows import well_formed
from optimum_si.config.groups import CalibrationConfig
from optimum_si.errors import CalibrationError, ConfigurationError, NumericalError, UnsupportedModelError
from optimum_si.models.forward.modes import evaluation_mode


if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM

DEFAULT_SEQUENCE_LENGTH = 2048


def perplexity(
    model: "PreTrainedModel | ORTSIModelForCausalLM",
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    texts: str | Sequence[Any] | Tensor | None = None,
    sequence_length: int | None = None,
    batch_size: int = 8,
    progress: bool = True,
    max_windows: int | None = None,
) -> float:
    """Token-level perplexity of a causal language model; inf when it is too large for a float.

    Documents are joined with an empty line between them, tokenized once and cut into full windows that do not overlap;
    the tail is dropped. Each token but the first of a window is predicted from those before it in the window. The
    model's mode is left as it was, and no gradients are built.

    Args:
        model: a causal language model of PyTorch, on any device, in any dtype, or exported; losses are taken in
            float32.
        tokenizer: needed for texts only.
        texts: a text, a list of texts (:func:`evaluation_texts` gives those of a dataset), or windows that are used as
            they are: an integer tensor [N, T], or a list of tensors or of lists of ints.
        sequence_length: tokens of a window; None is 2048 or what the model accepts, whichever is smaller.
        batch_size: windows that pass through the model together.
        progress: show a progress bar.
        max_windows: use only the first so many windows.

    Raises:
        CalibrationError: there is no text, no tokenizer for it, not one full window, or windows are too long.
        ConfigurationError: a number is out of range.
        NumericalError: a loss is NaN or infinite.
        UnsupportedModelError: the model predicts no next tokens.
    """
    _check_at_least("batch_size", batch_size, 1)
    if max_windows is not None:
        _check_at_least("max_windows", max_windows, 1)
    check_predicts_next_tokens(model)
    windows = _windows(texts, tokenizer, sequence_length, _max_length(model))[:max_windows]
    # Losses are added up in float64 on the CPU: not every accelerator has it.
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    # no_grad, not inference_mode: tensors that a model caches on its way must stay usable in training.
    mode = evaluation_mode(model) if isinstance(model, torch.nn.Module) else nullcontext()
    with mode, torch.no_grad():
        for batch in tqdm(make_batches(windows, batch_size), desc="perplexity", unit="batch", disable=not progress):
            for losses in _losses(model, batch["input_ids"], batch["attention_mask"]):
                total += losses.double().sum()
                count += losses.numel()
    return (total / count).exp().item()


def evaluation_texts(dataset: Any, config: CalibrationConfig | None = None) -> list[str]:
    """The texts of an evaluation dataset, for :func:`perplexity`.

    Args:
        dataset: "wikitext2" and "c4" are the published test and validation splits; else a Hub name, a local file,
            folder or glob, or a dataset object. Of "c4", evaluate :func:`max_evaluation_windows` windows.
        config: its ``dataset_config``, ``split`` (None is "test") and ``column`` are used.

    Raises:
        CalibrationError: there is no text, or it cannot be read.
    """
    return load_texts(dataset, config or CalibrationConfig(), evaluation=True)


def max_evaluation_windows(dataset: Any) -> int | None:
    """How many windows of a dataset the published protocol evaluates: 256 of "c4", else all (None)."""
    published = EVALUATION_SPLITS.get(dataset) if isinstance(dataset, str) else None
    return None if published is None else published.max_windows


def _check_at_least(name: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise ConfigurationError(f"{name}={value!r}: expected a whole number of at least {minimum}.")


def check_predicts_next_tokens(model: Any) -> None:
    """Raise :class:`UnsupportedModelError` for what is no causal language model."""
    # can_generate is False without a language-model head, and also for masked language models, which see every token.
    if model.config.is_encoder_decoder or not model.can_generate():
        raise UnsupportedModelError(
            f"{type(model).__name__} predicts no next tokens, so it has no perplexity: load a causal language model, "
            "such as AutoModelForCausalLM gives."
        )


def _max_length(model: Any) -> int | None:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def _windows(
    texts: Any, tokenizer: "PreTrainedTokenizerBase | None", sequence_length: int | None, max_length: int | None
) -> list[dict[str, Tensor]]:
    """Windows as examples, dicts of int64 [1, T]."""
    if texts is None or len(texts) == 0:
        raise CalibrationError("There is nothing to evaluate: give texts, a text, a list of texts or token windows.")
    if isinstance(texts, str):
        texts = [texts]
    if isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts):
        return _windows_of_texts(texts, tokenizer, sequence_length, max_length)
    windows = tokenized_examples([texts] if isinstance(texts, Tensor) else texts, max_length)
    for index, window in enumerate(windows):
        if "input_ids" not in window or window["input_ids"].shape[1] < 2:
            given = {name: list(value.shape) for name, value in window.items()}
            raise CalibrationError(
                f"Window {index} predicts no token, it has {given}: give at least 2 tokens as 'input_ids'."
            )
    return windows


def _windows_of_texts(
    texts: Sequence[str],
    tokenizer: "PreTrainedTokenizerBase | None",
    sequence_length: int | None,
    max_length: int | None,
) -> list[dict[str, Tensor]]:
    if tokenizer is None:
        raise CalibrationError("There are texts and no tokenizer: give the model's tokenizer, or token windows.")
    if sequence_length is None:
        sequence_length = min(DEFAULT_SEQUENCE_LENGTH, max_length or DEFAULT_SEQUENCE_LENGTH)
    _check_at_least("sequence_length", sequence_length, 2)
    if max_length is not None and sequence_length > max_length:
        raise CalibrationError(
            f"sequence_length={sequence_length} is longer than the {max_length} tokens that the model accepts: lower "
            "it."
        )
    ids = torch.tensor(tokenizer(well_formed("\n\n".join(texts)), verbose=False)["input_ids"])
    count = len(ids) // sequence_length
    if count == 0:
        raise CalibrationError(
            f"The text has {len(ids)} tokens and one window needs {sequence_length}: give more text or lower "
            "sequence_length. The text of a dataset is evaluation_texts(dataset)."
        )
    return tokenized_examples([ids[: count * sequence_length].view(count, sequence_length)])


def _losses(model: Any, ids: Tensor, mask: Tensor) -> Iterator[Tensor]:
    """Next-token losses of each window of a batch [B, T]: float32 [T - 1] on the CPU, fewer where it is padded."""
    ids, mask = ids.to(model.device), mask.to(model.device).bool()
    # Without a cache of keys and values, which nothing would read and which can be larger than the model.
    options = {"use_cache": False} if hasattr(model.config.get_text_config(), "use_cache") else {}
    logits = getattr(model(input_ids=ids, attention_mask=mask.long(), **options), "logits", None)
    if logits is None or logits.shape[:-1] != ids.shape:
        raise UnsupportedModelError(
            f"{type(model).__name__} gives no logits for every token: load a causal language model, such as "
            "AutoModelForCausalLM gives."
        )
    # Window by window, since float32 logits of a whole batch would not fit beside a large vocabulary.
    for row_logits, row_ids, row_mask in zip(logits, ids, mask, strict=True):
        losses = cross_entropy(row_logits[:-1].float(), row_ids[1:], reduction="none")
        losses = losses[row_mask[1:] & row_mask[:-1]].cpu()
        if not losses.isfinite().all():
            raise NumericalError(
                f"The loss of {type(model).__name__} is NaN or infinite: check its weights, and its dtype if it is "
                "float16."
            )
        yield losses
