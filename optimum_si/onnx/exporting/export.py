"""A checkpoint -> a directory that any ONNX Runtime opens."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optimum_si.checkpoint.gguf import release_gguf
from optimum_si.checkpoint.load import load_model, load_tokenizer
from optimum_si.checkpoint.outputs import check_output
from optimum_si.checkpoint.save import replaced_directory
from optimum_si.checkpoint.side_files import SideFiles
from optimum_si.errors import ExportError
from optimum_si.onnx.manifest import write_manifest
from optimum_si.onnx.requirements import require_onnx

from .options import ExportOptions
from .side_files import find_copied, write_side_files


_TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


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
        model_or_path: a model, a directory that ``save_pretrained`` wrote, a GGUF file, or a Hub id.
        output: directory to write; appears when it is complete.
        device: "cpu" or "cuda" fuses operators for that provider of ONNX Runtime; "tensorrt" keeps to standard
            operators, which TensorRT needs.
        values: how weights are stored: "fp32", "fp16", "int8" (dynamic quantization) or "int4" (blocks of 32 with a
            scale each). None is fp32 for "cpu" and fp16 otherwise.
        weights: "dense"; or "sparse", for "cpu": matrices with zeros enough are stored without them and computed by
            the kernels of ``optimum_si.onnx.kernels``, the rest and all activations as fp32. "fp16" then is how the
            kept weights of those are stored.
        sparse_min: with sparse weights, the least fraction of zeros of a matrix that is packed; None is 0.45.
        include, exclude: with sparse weights, globs over names of matrices that are packed, and that are not.
        opset: version of the ONNX operators; None leaves it to the exporter.
        runtime: "onnxruntime", or "genai" for ONNX Runtime GenAI: its own builder writes a graph for its decode loop
            in C++ (Llama-like architectures; fp32, fp16 or int4 for "cpu" and "cuda").
        tokenizer: saved beside a model that was given; a path brings its own.
        overwrite: replace what is in ``output``.
        kwargs: for loading a path: ``gguf_file``, ``revision``, ``token``, ``trust_remote_code``, ...

    Returns:
        ``output``.

    Raises:
        ConfigurationError: for a device or values that are unknown or contradict each other.
        ExportError: for an architecture that cannot be exported, missing packages, or a graph whose answers on a
            sample are not those of the model (fp32, fp16), or not finite (all values). Graphs with fusions for
            "cuda" that the CPU cannot run are not compared; ``verified`` in ``si_onnx.json`` says which was done.
        CheckpointError: when the model cannot be read or the output cannot be written.
    """
    options = ExportOptions.checked(device, values, weights, sparse_min, include, exclude, opset, runtime)
    require_onnx()
    given = model_or_path.name_or_path if isinstance(model_or_path, PreTrainedModel) else model_or_path
    check_output(output, overwrite, [given])
    if isinstance(model_or_path, PreTrainedModel):
        release_gguf(model_or_path)
        model, source = model_or_path, model_or_path.name_or_path or ""
        copied = find_copied(source if Path(source).is_dir() else "", required=False)
    else:
        model = load_model(model_or_path, **kwargs)
        tokenizer = tokenizer or load_tokenizer(model_or_path, required=False, **kwargs)
        source = str(model_or_path)
        copied = find_copied(source, required=True, **kwargs)
    write = _write_for_genai if runtime == "genai" else _write_for_onnx_runtime
    write(model, tokenizer, copied, Path(output), options, overwrite)
    return Path(output)


def _write_for_onnx_runtime(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    copied: SideFiles,
    output: Path,
    options: ExportOptions,
    overwrite: bool,
) -> None:
    from .names import rename
    from .quantize import quantize
    from .round_trips import drop_round_trips
    from .sparsify import sparsify
    from .tied_weights import share_tied_weights
    from .trace import trace
    from .verify import verify
    from .write import write

    dtype = _TORCH_DTYPES[options.computed_dtype]
    model = _in_dtype(model, dtype)
    is_for_tensorrt = options.device == "tensorrt"
    traced = trace(model, options.opset, None if is_for_tensorrt else options.device)
    with replaced_directory(output, overwrite) as directory:
        files = []
        for part in traced:
            rename(part.graph.graph)
            drop_round_trips(part.graph)
            if options.packing is not None:
                sparsify(part.graph, options.dtype, **options.packing)
            if options.dtype in ("int8", "int4"):
                part = quantize(part, options.dtype)
            share_tied_weights(part.graph.graph, contrib=not is_for_tensorrt)
            files.append(write(part, directory))
        verified = verify(model, files, options.dtype, options.device)
        write_side_files(directory, model, tokenizer, copied, dtype)
        write_manifest(directory, files, options.device, options.dtype, type(model).__name__, verified)


def _write_for_genai(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    copied: SideFiles,
    output: Path,
    options: ExportOptions,
    overwrite: bool,
) -> None:
    from .genai import build, pack_weights
    from .verify import verify

    if tokenizer is None:
        raise ExportError('runtime="genai" needs the tokenizer of the model: save it beside the model, or give it.')
    with tempfile.TemporaryDirectory() as folder, replaced_directory(output, overwrite) as directory:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        # What is packed is found in fp32.
        build(Path(folder), directory, options.device, options.dtype if options.packing is None else "fp32")
        if options.packing is not None:
            pack_weights(directory, options.dtype, options.packing)
        files = [directory / "model.onnx"]
        verified = verify(model, files, options.dtype, options.device)
        # The builder has written the tokenizer.
        dtype = _TORCH_DTYPES[options.computed_dtype]
        write_side_files(directory, model, tokenizer, copied, dtype, has_tokenizer=True)
        write_manifest(directory, files, options.device, options.dtype, type(model).__name__, verified)


def _in_dtype(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model in the dtype that the graph computes in; a copy where that is another one."""
    if all(parameter.dtype == dtype for parameter in model.parameters() if parameter.is_floating_point()):
        return model
    converted = copy.deepcopy(model).to(dtype)  # type: ignore[arg-type]
    for name, parameter in converted.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ExportError(f"{name!r} does not fit into {dtype}: export with values='fp32', 'int8' or 'int4'.")
    return converted
