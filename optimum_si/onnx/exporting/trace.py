"""PyTorch -> ONNX graphs. The one module that knows ``transformers.exporters``, which are marked experimental."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from optimum_si.errors import ExportError
from optimum_si.models.forward.modes import evaluation_mode, without_cache
from optimum_si.onnx.cache_argument import CACHE

from .matching import quick_matching


if TYPE_CHECKING:
    import onnx_ir

#: Batch and length of the sample that a graph is traced with: sizes of 1 would be taken for constants.
SAMPLE_BATCH, SAMPLE_LENGTH, SAMPLE_PADDING = 2, 7, 3


@dataclass(frozen=True, eq=False)
class Trace:
    """One traced graph.

    Args:
        name: "model", or "encoder" and "decoder" of a sequence-to-sequence model.
        graph: the graph with its weights; names of inputs and outputs are as transformers gives them.
    """

    name: str
    graph: "onnx_ir.Model"


def trace(model: PreTrainedModel, opset: int | None, fusions: str | None) -> list[Trace]:
    """Graphs of a model, with dynamic batch and length.

    Args:
        model: the model, in the dtype that the graph computes in.
        opset: version of the ONNX operators; None is the exporter's own choice.
        fusions: "cpu" or "cuda" fuses into ONNX Runtime's own operators, None keeps to standard ones.

    Raises:
        ExportError: when transformers or torch cannot export this architecture, or packages are missing.
    """
    from transformers.exporters import OnnxConfig, OnnxExporter

    if is_causal(model) and getattr(model, "_is_stateful", False):
        raise ExportError(
            f"{type(model).__name__} keeps a state instead of keys and values, which generation on ONNX Runtime does "
            "not have yet: try runtime='genai' (--runtime genai), or run the pruned checkpoint in PyTorch."
        )
    config = OnnxConfig(dynamic=True, opset_version=opset, ort_fusions=fusions)  # type: ignore[arg-type]
    try:
        with evaluation_mode(model), plain_generation(model), quiet(), quick_matching():
            exporter = OnnxExporter()
            return [
                Trace(name, exporter.export_program(part, inputs, config)[0]) for name, part, inputs in _parts(model)
            ]
    except Exception as error:
        if "padding token" in str(error) and getattr(model.config.get_text_config(), "pad_token_id", None) is None:
            raise ExportError(
                f"{type(model).__name__} takes one text at a time while config.pad_token_id is None, and a graph "
                "takes any number: set it to the tokenizer's (model.config.pad_token_id = tokenizer.pad_token_id, or "
                "pad_token_id in config.json), then export again."
            ) from error
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ExportError(
            f"{type(model).__name__} cannot be exported: {type(error).__name__}: {reason[:300]} The exporter of "
            "transformers does not handle this architecture with the installed versions: try "
            'pip install -U transformers "torch==2.12.*", or export the checkpoint with optimum-onnx in an '
            "environment of its own."
        ) from error


def is_causal(model: PreTrainedModel) -> bool:
    """Whether the model generates text by itself, token after token."""
    return bool(model.can_generate()) and not model.config.is_encoder_decoder


def _parts(model: PreTrainedModel) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(name, module, sample inputs) of each graph."""
    if is_causal(model):
        yield "model", *_decoding(model, _text(model, padding="left"))
        return
    with without_cache(model):
        yield from _parts_without_cache(model)


def _parts_without_cache(model: PreTrainedModel) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    if model.config.is_encoder_decoder and model.can_generate():
        inputs = _text(model, padding="right")
        encoder = model.get_encoder()
        yield "encoder", encoder, inputs
        with torch.no_grad():
            encoded = encoder(**inputs)
        started = {**_text(model, padding="left"), "encoder_outputs": encoded}
        started["decoder_input_ids"] = started.pop("input_ids")
        yield "decoder", model, {**started, "attention_mask": inputs["attention_mask"]}
    else:
        yield "model", model, sample(model)


def _decoding(model: PreTrainedModel, inputs: dict[str, Tensor]) -> tuple[Any, dict[str, Any]]:
    """A module and inputs of several new tokens after some in a cache: it serves prompts and single tokens alike."""
    from transformers.exporters.utils import decompose_for_generation

    # Not the model's own recipe, which may sample, search with beams or stop at once.
    recipe = GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)
    # Not the model's own cache either, which would forget tokens that have left a sliding window: with all tokens
    # kept, the mask of the model itself leaves them out, at any length.
    whole = {**inputs, CACHE: DynamicCache()}
    return decompose_for_generation(model, whole, generation_config=recipe, multi_token_decode=True)["decode"]


def sample(model: PreTrainedModel) -> dict[str, Tensor]:
    """Inputs of a forward pass: tokens with padding on the right, or images."""
    name = model.main_input_name
    if name == "input_ids":
        return _text(model, padding="right")
    if name == "pixel_values":
        config: Any = model.config
        size = config.image_size if isinstance(config.image_size, (tuple, list)) else (config.image_size,) * 2
        shape = (SAMPLE_BATCH, getattr(config, "num_channels", 3), *size)
        return {name: torch.rand(shape, generator=_generator()).to(model.device, model.dtype)}
    raise ExportError(f"{type(model).__name__} takes {name!r}: only models of text and of images can be exported yet.")


def _text(model: PreTrainedModel, padding: str) -> dict[str, Tensor]:
    """Token ids with a padded row: a mask of ones would be left out of the graph, and padding be wrong silently."""
    embeddings: Any = model.get_input_embeddings()
    size = embeddings.num_embeddings
    ids = torch.randint(0, size, (SAMPLE_BATCH, SAMPLE_LENGTH), generator=_generator())
    mask = torch.ones_like(ids)
    mask[0, slice(0, SAMPLE_PADDING) if padding == "left" else slice(-SAMPLE_PADDING, None)] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 0) > 1 and not model.can_generate():
        inputs["token_type_ids"] = torch.zeros_like(ids)
    return {name: value.to(model.device) for name, value in inputs.items()}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@contextmanager
def plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """A model without its own recipe for a while, from which ``generate`` fills what it is not given: a kind of cache,
    for example, which a graph does not have."""
    own = getattr(model, "generation_config", None)
    if own is None:
        yield
        return
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters and quantizers log and print on their way; errors are raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
