"""A model to evaluate, however it was given: by a name, as an export, or loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optimum_si.checkpoint.load import load_model, load_tokenizer, move
from optimum_si.errors import UnsupportedModelError

from .sparsity import exported_sparsity, measured_sparsity


if TYPE_CHECKING:
    from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM

Evaluable = str | Path | PreTrainedModel


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model with what an evaluation needs of it.

    Args:
        name: Hub id or directory, or the class of a model that came from nowhere.
        runtime: "PyTorch" or "ONNX Runtime".
        model: the model, in PyTorch or exported.
        tokenizer: tokenizer of the model; None where there is none.
        sparsity: fraction of zeros, as counted.
    """

    name: str
    runtime: str
    model: "PreTrainedModel | ORTSIModelForCausalLM"
    tokenizer: PreTrainedTokenizerBase | None
    sparsity: float


def open_model(
    given: Evaluable,
    tokenizer: PreTrainedTokenizerBase | None,
    dtype: str | torch.dtype | None,
    device: str | torch.device | None,
    trust_remote_code: bool,
    **place: Any,
) -> OpenedModel:
    """Load a model, unless it is loaded, with its tokenizer, and count its zeros.

    Args:
        given: Hub id, directory of a checkpoint or of an export, GGUF file, or a loaded model.
        tokenizer: tokenizer of the model; None loads that of its place.
        dtype: dtype of the weights of a checkpoint that is loaded; None is as saved.
        device: where to compute; None leaves a loaded model where it is.
        trust_remote_code: run Python code that comes with a checkpoint.
        place: ``gguf_file``, for loading by name.

    Raises:
        CheckpointError: when nothing can be read there, or an export is damaged.
        ConfigurationError: when there is no such device.
        UnsupportedModelError: for what is no model, and models that cannot be loaded or have no blocks to prune.
    """
    if isinstance(given, (str, Path)):
        if Path(given, "model.onnx").is_file():
            return _open_export(given, tokenizer, device)
        options: dict[str, Any] = {"trust_remote_code": trust_remote_code, **place}
        if dtype is not None:
            options["dtype"] = dtype
        model, name = load_model(given, **options), str(given)
        tokenizer = tokenizer or load_tokenizer(given, required=False, **options)
    elif isinstance(given, PreTrainedModel):
        model, name = given, given.name_or_path or type(given).__name__
        tokenizer = tokenizer or load_tokenizer(given.name_or_path or "", required=False)
    else:
        raise UnsupportedModelError(
            f"{type(given).__name__} cannot be evaluated: give a Hub id, a directory, or a transformers "
            "PreTrainedModel."
        )
    if device is not None:
        move(model, device)
    return OpenedModel(name, "PyTorch", model, tokenizer, measured_sparsity(model))


def _open_export(
    directory: str | Path, tokenizer: PreTrainedTokenizerBase | None, device: str | torch.device | None
) -> OpenedModel:
    from optimum_si.onnx.inspect import check
    from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM

    # Its checksums are compared as the zeros are counted, and need not be again.
    matrices = check(directory)
    chosen = None if device is None else str(device)
    model = ORTSIModelForCausalLM.from_pretrained(directory, verify=False, device=chosen)
    sparsity = exported_sparsity(matrices, model.config.get_text_config().vocab_size)
    tokenizer = tokenizer or load_tokenizer(directory, required=False)
    return OpenedModel(str(directory), "ONNX Runtime", model, tokenizer, sparsity)
