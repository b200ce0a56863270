"""Whether an exported graph answers as the model that it came from, before it takes its place."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from optimum_si.errors import CheckpointError, ConfigurationError, ExportError
from optimum_si.models.forward.modes import evaluation_mode
from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM
from optimum_si.onnx.runtime.modeling import ORTSIModel
from optimum_si.onnx.runtime.session import open_session

from .trace import is_causal, sample


#: Largest error of an answer, relative to its norm. What quantization costs depends on the model: there the answer
#: has to be finite, and its quality is measured by perplexity.
TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2, "int8": math.inf, "int4": math.inf}


def verify(model: PreTrainedModel, paths: list[Path], dtype: str, device: str) -> bool:
    """Compare the answers of graphs, run on the CPU, with those of PyTorch, on a small sample.

    Args:
        model: the model, in the dtype that the graphs compute in.
        paths: files of the graphs: one, or encoder and decoder.
        dtype: dtype of the stored weights.
        device: device that they were written for.

    Returns:
        Whether they could be run: fusions for CUDA may have no counterpart on the CPU.

    Raises:
        ExportError: when they differ, or are not finite.
    """
    try:
        graphs = [_open(model, path) for path in paths]
    except CheckpointError:
        if device == "cuda":
            return False
        raise
    with evaluation_mode(model), torch.no_grad():
        compare = _compare_two if len(graphs) == 2 else _compare_one
        try:
            pairs = compare(model, *graphs)
        except ConfigurationError as error:
            raise ExportError(
                f"ONNX Runtime cannot compute the exported graph of {type(model).__name__}: it was not written. "
                f"{str(error)[:300]}"
            ) from error
    for expected, answer in pairs:
        _check(type(model).__name__, expected.float().cpu(), answer.float(), dtype)
    return True


def _open(model: PreTrainedModel, path: Path) -> ORTSIModel:
    model_class = ORTSIModelForCausalLM if is_causal(model) else ORTSIModel
    return model_class(open_session(path, None, verify=False), model.config, path)


def _compare_one(model: PreTrainedModel, graph: ORTSIModel) -> list[tuple[Tensor, Tensor]]:
    inputs = _unpadded(model)
    return [(model(**inputs)[0], next(iter(graph(**_host(inputs)).values())))]


def _compare_two(model: PreTrainedModel, encoder: ORTSIModel, decoder: ORTSIModel) -> list[tuple[Tensor, Tensor]]:
    inputs = _unpadded(model)
    started = inputs["input_ids"][:, :3]
    hidden = model.get_encoder()(**inputs)[0]
    expected = model(**inputs, decoder_input_ids=started).logits
    encoded = next(iter(encoder(**_host(inputs)).values()))
    answer = decoder(
        decoder_input_ids=started.cpu(),
        encoder_hidden_states=encoded,
        encoder_attention_mask=inputs["attention_mask"].cpu(),
    )
    return [(hidden, encoded), (expected, answer["logits"])]


def _unpadded(model: PreTrainedModel) -> dict[str, Any]:
    """A sample without padding: positions of padded rows are a matter of taste until a cache settles them."""
    inputs: dict[str, Any] = sample(model)
    if "attention_mask" in inputs:
        inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    return inputs


def _host(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value.cpu() for name, value in inputs.items()}


def _check(name: str, expected: Tensor, answer: Tensor, dtype: str) -> None:
    if not bool(torch.isfinite(answer).all() and torch.isfinite(expected).all()):
        where = "the graph" if bool(torch.isfinite(expected).all()) else "the model itself"
        raise ExportError(
            f"{where} gives NaN or infinity for {name} with values={dtype!r} on a small sample: it was not written. "
            "Activations may be too large for this dtype: export with values='fp32'."
        )
    difference = float((answer - expected).norm() / expected.norm().clamp_min(1e-30))
    if difference > TOLERANCE[dtype]:
        raise ExportError(
            f"the exported graph of {name} does not answer as the model does (relative error of a sample "
            f"{difference:.2g}, accepted {TOLERANCE[dtype]:g}): it was not written. Try another runtime or another "
            "version of onnxruntime."
        )
