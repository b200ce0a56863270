"""The comparison on a model and a text of the user's own."""

import shlex
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optimum_si.calibration.sources import load_texts
from optimum_si.checkpoint.load import maximum_length
from optimum_si.config.groups import CalibrationConfig
from optimum_si.errors import CalibrationError, ConfigurationError, UnsupportedModelError
from optimum_si.pruner import SIPruner

from .comparison import Metric, Workload, best_device, check_saved, compare, say
from .embeddings import cosine_metric
from .language_model import perplexity_metric


#: More text than this is never needed, and tokenizing a whole corpus takes long.
MAX_CHARACTERS = 1_000_000


def split_texts(texts: list[str]) -> tuple[list[str], list[str]]:
    """Two halves with nothing in common: of the documents, or of the only document's text.

    Raises:
        CalibrationError: when there is no text to split.
    """
    texts = [text for text in texts if text.strip()]
    if len(texts) > 1:
        unique = list(dict.fromkeys(texts))
        if len(unique) > 1:
            return unique[: len(unique) // 2], unique[len(unique) // 2 :]
        texts = unique
    text = texts[0].strip() if texts else ""
    middle = len(text) // 2
    if not text[:middle].strip():
        raise CalibrationError("--dataset has too little text: half of it calibrates, the other half measures.")
    return [text[:middle]], [text[middle:]]


def limit_texts(texts: list[str], characters: int) -> list[str]:
    """The first documents, at most so many characters in all; the last one is cut."""
    kept: list[str] = []
    for text in texts:
        if characters <= 0:
            break
        kept.append(text[:characters])
        characters -= len(kept[-1])
    return kept


def chunks(texts: list[str], count: int, words: int = 64) -> list[str]:
    """At most ``count`` passages of at most ``words`` words."""
    passages: list[str] = []
    for text in texts:
        split = text.split()
        for start in range(0, len(split), words):
            passages.append(" ".join(split[start : start + words]))
            if len(passages) == count:
                return passages
    return passages


def choose_metric(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], workload: Workload
) -> Metric:
    """Perplexity for a causal language model; for others, mean cosine of mean-pooled last hidden states.

    Raises:
        UnsupportedModelError: for an encoder-decoder.
        CalibrationError: when the text does not fill a window.
    """
    if model.config.is_encoder_decoder:
        raise UnsupportedModelError(
            "The demo measures causal language models and encoders, not encoder-decoders: prune this one with "
            "`optimum-cli si prune`."
        )
    limit = maximum_length(model) or workload.test_length
    if not model.can_generate():
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return cosine_metric(model, tokenizer, chunks(texts, workload.sentences), min(128, limit))
    ids = tokenizer("\n\n".join(texts), return_tensors="pt", verbose=False)["input_ids"][0]
    length = min(workload.test_length, limit)
    count = min(workload.test_windows, len(ids) // length)
    if count == 0:
        raise CalibrationError(
            f"The half of --dataset that measures has {len(ids)} tokens and one window needs {length}: give more text."
        )
    return perplexity_metric(model, ids[: count * length].view(count, length))


def run_own_model(source: str, dataset: Any, output: Path, quick: bool) -> None:
    """Compare on the user's model and text, save the best result at 2:4 and reload it."""
    workload = Workload.of(quick)
    texts = load_texts(dataset, CalibrationConfig())
    calibration, held_out = (limit_texts(half, MAX_CHARACTERS) for half in split_texts(texts))
    pruner = SIPruner.from_pretrained(source, device=best_device())
    model, tokenizer = pruner.model, pruner.tokenizer
    if tokenizer is None:
        raise ConfigurationError(f"--model {source} has no tokenizer beside it, which text needs: save one there.")
    metric = choose_metric(model, tokenizer, held_out, workload)
    say(
        f"{source}, pruned on {workload.windows} windows of {workload.length} tokens from one half of the dataset.\n"
        f"Measured: {metric.name} on the other half."
    )
    compare(model, tokenizer, calibration, metric, workload, output)
    check_saved(type(model).from_pretrained(output), output)
    # The dataset may be an object, which no command line can name.
    name = shlex.quote(dataset) if isinstance(dataset, str) else "DATASET"
    say(
        "Next, the recipe at its full length, with as much calibration data as the papers use:\n"
        f"  optimum-cli si prune --model {shlex.quote(source)} --dataset {name} --pattern 2:4 --output pruned"
    )
