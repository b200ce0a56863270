"""A checkpoint -> a directory that any ONNX Runtime opens."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optimum_si.checkpoint.load import find_file, load_model, load_tokenizer
from optimum_si.checkpoint.save import check_output, replaced_directory
from optimum_si.config.si_config import SIConfig
from optimum_si.config.validators import check_choice, check_integer, check_number
from optimum_si.errors import CheckpointError, ConfigurationError, ExportError
from optimum_si.onnx.manifest import write_manifest
from optimum_si.onnx.requirements import require_onnx
from optimum_si.onnx.runtime.providers import DEVICES


VALUES = ("fp32", "fp16", "int8", "int4")
RUNTIMES = ("onnxruntime", "genai")
WEIGHTS = ("dense", "sparse")
OPSETS = (18, 23)


def export(
    model_or_path: PreTrainedModel | str | Path,
    output: str | Path,
    *,
    device: str = "cpu",
    values: str | None = None,
    weights: str = "dense",
    sparse_min: float | None = None,
    include: str | list[str] | None = None,
    exclude: str | list[str] | None = None,
    opset: int | None = None,
    runtime: str = "onnxruntime",
    tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
    **kwargs: Any,
) -> Path:
    """Write ``model.onnx`` and ``model.onnx.data``, with all that loading and generating need beside them.

    One graph for a decoder (prompts and single tokens alike, with a cache of any length) or an encoder; for a
    sequence-to-sequence model ``encoder.onnx`` and ``decoder.onnx``, which computes all target tokens again for each
    new one. Zeros of a pruned model stay exact zeros.

    Args:
        model_or_path: a model, a directory that ``save_pretrained`` wrote, or a Hub id.
        output: directory to write; appears when it is complete.
        device: "cpu" or "cuda" fuses operators for that provider of ONNX Runtime; "tensorrt" keeps to standard
            operators, which TensorRT needs.
        values: how weights are stored: "fp32", "fp16", "int8" (dynamic quantization) or "int4" (blocks of 32 with a
            scale each). None is fp32 for "cpu" and fp16 otherwise.
        weights: "dense"; or "sparse", for "cpu": matrices with zeros enough are stored without them and computed by
            the kernels of ``optimum_si.onnx.kernels``, the rest and all activations as fp32. "fp16" then is how the
            kept weights of those are stored.
        sparse_min: with sparse weights, the least share of zeros of a matrix that is packed; None is 0.45.
        include, exclude: with sparse weights, globs over names of matrices that are packed, and that are not.
        opset: version of the ONNX operators; None leaves it to the exporter.
        runtime: "onnxruntime", or "genai" for ONNX Runtime GenAI: its own builder writes a graph for its decode loop
            in C++ (Llama-like architectures; fp32, fp16 or int4 for "cpu" and "cuda").
        tokenizer: saved beside a model that was given; a path brings its own.
        overwrite: replace what is in ``output``.
        kwargs: for loading a path: ``revision``, ``token``, ``trust_remote_code``, ...

    Returns:
        ``output``.

    Raises:
        ConfigurationError: for a device or values that are unknown or contradict each other.
        ExportError: for an architecture that cannot be exported, missing packages, or a graph whose answers on a
            sample are not those of the model (fp32, fp16), or not finite (all values). Graphs with fusions for
            "cuda" that the CPU cannot run are not compared; ``verified`` in ``si_onnx.json`` says which was done.
        CheckpointError: when the model cannot be read or the output cannot be written.
    """
    values = _checked(device, values, opset, runtime)
    packing = _packing(weights, device, sparse_min, include, exclude)
    require_onnx()
    check_output(output, overwrite)
    if isinstance(model_or_path, PreTrainedModel):
        model, source = model_or_path, model_or_path.name_or_path
        beside = _side_files(source) if source and Path(source).is_dir() else []
    else:
        model = load_model(model_or_path, **kwargs)
        tokenizer = tokenizer or load_tokenizer(model_or_path, required=False, **kwargs)
        source = str(model_or_path)
        beside = _side_files(source, **kwargs)
    if runtime == "genai":
        return _export_for_genai(model, tokenizer, beside, Path(output), device, values, packing, overwrite)
    if source and Path(source).is_dir() and Path(source).resolve() == Path(output).resolve():
        raise CheckpointError(
            f"{str(output)!r} is the model's own directory, which the export would replace: give another one."
        )
    from optimum_si.onnx.graphs import rename, share_tied_weights
    from optimum_si.onnx.sparsify import sparsify

    from .quantize import quantize
    from .simplify import drop_round_trips
    from .trace import trace
    from .verify import verify
    from .write import write

    computed = "fp32" if packing is not None and values == "fp16" else values
    model = _in_dtype(model, computed)
    traced = trace(model, opset, None if device == "tensorrt" else device)
    with replaced_directory(output, overwrite) as directory:
        files = []
        for part in traced:
            rename(part.graph.graph)
            drop_round_trips(part.graph.graph)
            if packing is not None:
                sparsify(part.graph.graph, values, **packing)
            if values in ("int8", "int4"):
                part = quantize(part, values)
            share_tied_weights(part.graph.graph, contrib=device != "tensorrt")
            files.append(write(part, directory))
        verified = verify(model, files, values, device)
        _carry_along(model, tokenizer, beside, computed, directory)
        write_manifest(directory, files, device, values, type(model).__name__, verified)
    return Path(output)


def _packing(
    weights: str,
    device: str,
    sparse_min: float | None,
    include: str | list[str] | None,
    exclude: str | list[str] | None,
) -> dict[str, Any] | None:
    """Options of ``sparsify``; None for dense weights."""
    check_choice("weights", weights, WEIGHTS)
    options = {"sparse_min": sparse_min, "include": include, "exclude": exclude}
    given = {name: value for name, value in options.items() if value is not None}
    if weights == "dense":
        if given:
            raise ConfigurationError(f"{', '.join(given)} belong to weights='sparse': set it, or leave them out.")
        return None
    if device != "cpu":
        raise ConfigurationError(
            f"weights='sparse' with device={device!r}: the sparse kernels are for 'cpu'; TensorRT takes 2:4 as dense "
            "weights."
        )
    if sparse_min is not None:
        check_number("sparse_min", sparse_min, minimum=0, below=1)
    return {name: [value] if isinstance(value, str) else value for name, value in given.items()}


def _export_for_genai(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    beside: list[Path],
    output: Path,
    device: str,
    values: str,
    packing: dict[str, Any] | None,
    overwrite: bool,
) -> Path:
    from .genai import build, pack_weights
    from .verify import verify

    if tokenizer is None:
        raise ExportError('runtime="genai" needs the tokenizer of the model: save it beside the model, or give it.')
    with tempfile.TemporaryDirectory() as folder, replaced_directory(output, overwrite) as directory:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # What is packed is found in fp32.
        build(Path(folder), directory, device, values if packing is None else "fp32")
        if packing is not None:
            pack_weights(directory, values, packing)
        files = [directory / "model.onnx"]
        verified = verify(model, files, values, device)
        _carry_along(model, None, beside, values if packing is None else "fp32", directory)
        write_manifest(directory, files, device, values, type(model).__name__, verified)
    return output


def _checked(device: str, values: str | None, opset: int | None, runtime: str) -> str:
    check_choice("device", device, DEVICES)
    check_choice("runtime", runtime, RUNTIMES)
    if values is None:
        values = "fp32" if device == "cpu" else "fp16"
    check_choice("values", values, VALUES)
    if device == "tensorrt" and values != "fp16":
        raise ExportError(
            f"device='tensorrt' with values={values!r}: TensorRT prunes 2:4 in fp16, and its sparse kernels take no "
            "quantized MatMulNBits: leave values out, or export for 'cuda'."
        )
    if opset is not None:
        check_integer("opset", opset, minimum=OPSETS[0])
        if opset > OPSETS[1]:
            raise ExportError(f"opset={opset}: the exporter writes {OPSETS[0]} to {OPSETS[1]}.")
    return values


def _in_dtype(model: PreTrainedModel, values: str) -> PreTrainedModel:
    """The model in the dtype that the graph computes in; a copy where that is another one."""
    dtype = _dtype_of(values)
    if all(parameter.dtype == dtype for parameter in model.parameters() if parameter.is_floating_point()):
        return model
    converted = copy.deepcopy(model).to(dtype)  # type: ignore[arg-type]
    for name, parameter in converted.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ExportError(f"{name!r} does not fit into {dtype}: export with values='fp32', 'int8' or 'int4'.")
    return converted


def _dtype_of(values: str) -> torch.dtype:
    """What the graph computes in."""
    return torch.float16 if values == "fp16" else torch.float32


def _side_files(source: str, **kwargs: Any) -> list[Path]:
    """What belongs to a checkpoint beside model and tokenizer."""
    names = (SIConfig.CONFIG_NAME, "si_report.json", "preprocessor_config.json")
    return [found for name in names if (found := find_file(source, name, **kwargs)) is not None]


def _carry_along(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    beside: list[Path],
    values: str,
    directory: Path,
) -> None:
    """Configs, tokenizer and the recipe that pruned the model."""
    config = copy.deepcopy(model.config)
    config.dtype = _dtype_of(values)
    config.save_pretrained(directory)
    if model.can_generate():
        model.generation_config.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    for file in beside:
        (directory / file.name).write_bytes(file.read_bytes())
