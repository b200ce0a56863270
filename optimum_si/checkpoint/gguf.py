"""Models in GGUF files: their weights are dequantized, and what is loaded is an ordinary dense model."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
from transformers.utils import CONFIG_NAME, cached_file

from optimum_si.errors import CheckpointError, UnsupportedModelError, reason_of
from optimum_si.warnings import warn

from .claims import TOGETHER
from .gguf_header import GGUFHeader, read_header


SUFFIX = ".gguf"
_PACKAGES = ("gguf", "accelerate")


def find_gguf(source: str | Path, gguf_file: str | None = None, **place: Any) -> Path | None:
    """The GGUF file that a source names; None where it is an ordinary checkpoint.

    Args:
        source: a GGUF file, a directory with one, or a Hub id.
        gguf_file: name of the file in that directory or repository; needed on the Hub, and where there are several.
        place: ``subfolder``, ``revision``, ``token``, ... of the source.

    Raises:
        CheckpointError: when there is no such file, or there are several and none is named.
    """
    path = Path(source)
    if path.suffix == SUFFIX and (path.is_file() or path.parent.is_dir()):
        if not path.is_file():
            raise CheckpointError(f"{str(path)!r} does not exist: give the path of a GGUF file.")
        if gguf_file is not None and path.name != gguf_file:
            raise CheckpointError(f"{str(path)!r} is a GGUF file itself: leave out gguf_file={gguf_file!r}.")
        return path.absolute()
    if path.is_dir():
        return _find_in(path / (place.get("subfolder") or ""), gguf_file)
    if gguf_file is None:
        return None
    try:
        return Path(str(cached_file(str(source), gguf_file, **place)))
    except Exception as error:  # of the network, of the Hub, for names that are none
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{gguf_file!r} cannot be had from {str(source)!r}: {reason}") from error


def load_gguf_model(path: Path, dtype: str | torch.dtype = "auto", **options: Any) -> PreTrainedModel:
    """The dense model in a GGUF file, with the head that it has.

    Args:
        path: the file.
        dtype: of the weights; "auto" is fp32 for quantized ones, and that of the file for others.
        options: for ``from_pretrained``.

    Raises:
        CheckpointError: when the file is damaged, a part of several, or packages are missing.
        UnsupportedModelError: for an architecture or a quantization that transformers cannot read.
    """
    header = _checked_header(path)
    _check_types(path, header)
    _check_counts(path, header)
    directory, file = str(path.parent), str(path)
    try:
        config = AutoConfig.from_pretrained(directory, gguf_file=file, trust_remote_code=False)
    except Exception as error:  # ValueError, KeyError and more, for what a reader does not know
        raise UnsupportedModelError(
            f"{path.name!r} holds a model of the architecture {header.architecture!r}, which transformers "
            f"{transformers.__version__} cannot read ({_first_line(error)}): load its original checkpoint instead."
        ) from error
    if hasattr(transformers, "GgufConfig"):  # older versions keep no weights packed
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    chosen = (torch.float32 if _is_quantized(header) else "auto") if dtype == "auto" else dtype
    model: PreTrainedModel = _model_class(config).from_pretrained(directory, gguf_file=file, dtype=chosen, **options)
    model.config.name_or_path = str(path)
    release_gguf(model)
    return model


def _check_counts(path: Path, header: GGUFHeader) -> None:
    """Refuse a file that says it has more blocks or experts than tensors could fill, before they are built."""
    for name, value in header.metadata.items():
        if name.endswith((".block_count", ".expert_count")) and isinstance(value, int):
            if value > max(len(header.tensors), TOGETHER if "expert" in name else 0):
                raise CheckpointError(
                    f"{path.name!r} says {name}={value:,}, and its {len(header.tensors):,} tensors cannot fill that "
                    "many: it is damaged. Download it again."
                )


def load_gguf_tokenizer(path: Path, required: bool) -> PreTrainedTokenizerBase | None:
    """The tokenizer in a GGUF file, with its chat template; None where there is none and it is not required.

    Raises:
        CheckpointError: when the file is damaged, or the tokenizer is required and cannot be had.
    """
    header = _checked_header(path)
    if not header.has_tokenizer:
        if not required:
            return None
        raise CheckpointError(f"{path.name!r} has no tokenizer inside: give one (--tokenizer).")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(path.parent), gguf_file=str(path), trust_remote_code=False
        )
        return tokenizer
    except Exception as error:  # of the reader, and of the Rust below it
        message = f"the tokenizer in {path.name!r} cannot be read ({_first_line(error)}): give one (--tokenizer)."
        if required:
            raise CheckpointError(message) from error
        warn(message, UserWarning)
        return None


def release_gguf(model: PreTrainedModel) -> None:
    """Make an ordinary model of one that was loaded from a GGUF file: its weights are dense, its config says not.

    Raises:
        UnsupportedModelError: when weights were left in their packed blocks.
    """
    recipe = getattr(model.config, "quantization_config", None)
    values = recipe if isinstance(recipe, dict) or recipe is None else recipe.to_dict()
    if not values or getattr(values.get("quant_method"), "value", values.get("quant_method")) != "gguf":
        return
    if not all(parameter.is_floating_point() for parameter in model.parameters()):
        raise UnsupportedModelError(
            f"{type(model).__name__} holds the packed weights of a GGUF file: load it with "
            "quantization_config=GgufConfig(dequantize=True), or give its path."
        )
    del model.config.quantization_config
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    model.is_quantized = False  # type: ignore[assignment]


def _find_in(directory: Path, gguf_file: str | None) -> Path | None:
    found = sorted(file.name for file in directory.glob(f"*{SUFFIX}"))
    if gguf_file is not None:
        if (directory / gguf_file).is_file():
            return (directory / gguf_file).absolute()
        has = f"it has {', '.join(found)}" if found else "it has no GGUF file"
        raise CheckpointError(f"{str(directory)!r} has no file {gguf_file!r}: {has}.")
    if not found or (directory / CONFIG_NAME).is_file():
        return None
    if len(found) > 1:
        raise CheckpointError(
            f"{str(directory)!r} holds {len(found)} GGUF files ({', '.join(found)}): name one with gguf_file= "
            "(--gguf-file)."
        )
    return (directory / found[0]).absolute()


def _checked_header(path: Path) -> GGUFHeader:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise CheckpointError(f'GGUF files need {" and ".join(missing)}: pip install "optimum-si[gguf]".')
    header = read_header(path)
    if (parts := header.metadata.get("split.count", 1)) > 1:
        raise CheckpointError(
            f"{path.name!r} is one of {parts} parts of a model: merge them first (llama-gguf-split --merge)."
        )
    end = header.data_start + max((tensor.offset + _bytes(tensor) for tensor in header.tensors.values()), default=0)
    if os.path.getsize(path) < end:
        raise CheckpointError(
            f"{str(path)!r} is truncated: its tensors end at byte {end:,}, the file at {os.path.getsize(path):,}. "
            "Download it again."
        )
    return header


def _bytes(tensor: Any) -> int:
    """Size of a tensor in the file; of a type that ``gguf`` does not know, the least that it can be."""
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES.get(tensor.type, (1, 0))
    return tensor.elements // block * size


def _check_types(path: Path, header: GGUFHeader) -> None:
    """Raise :class:`UnsupportedModelError` for tensors of a type that cannot be turned into numbers."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    names = {kind.value: kind for kind in GGMLQuantizationType}
    for number in sorted({tensor.type for tensor in header.tensors.values()}):
        try:
            kind = names[number]
            dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except (KeyError, NotImplementedError) as error:
            name = names[number].name if number in names else f"number {number}"
            raise UnsupportedModelError(
                f"{path.name!r} holds weights of the type {name}, which cannot be dequantized here: take another "
                "quantization of the model, such as Q8_0 or F16, or a newer version of gguf."
            ) from error


def _is_quantized(header: GGUFHeader) -> bool:
    from gguf import GGMLQuantizationType as Type

    return not {tensor.type for tensor in header.tensors.values()} <= {Type.F64, Type.F32, Type.F16, Type.BF16}


def _model_class(config: Any) -> Any:
    if (name := (config.architectures or [""])[0]) and hasattr(transformers, name):
        return getattr(transformers, name)
    for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING):
        if type(config) in mapping:
            return mapping[type(config)]
    return AutoModel


def _first_line(error: Exception) -> str:
    return reason_of(error).rstrip(".")
