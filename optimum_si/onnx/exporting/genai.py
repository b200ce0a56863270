"""A checkpoint -> a directory for ONNX Runtime GenAI, whose decode loop is C++; by GenAI's own builder."""

import json
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optimum_si.errors import ConfigurationError, ExportError


#: What the builder stores weights as, and the providers that it writes for.
DTYPES = ("fp32", "fp16", "int4")
DEVICES = ("cpu", "cuda")


def build(checkpoint: Path, directory: Path, device: str, dtype: str) -> None:
    """Write the graph, its weights, ``genai_config.json`` and the tokenizer.

    Args:
        checkpoint: a directory with model and tokenizer.
        directory: directory to write into.
        device: "cpu" or "cuda".
        dtype: dtype of the stored weights, "fp32", "fp16" or "int4".

    Raises:
        ConfigurationError: for a device or values that the builder does not have.
        ExportError: when GenAI is missing, or does not know the architecture.
    """
    if dtype not in DTYPES or device not in DEVICES:
        raise ConfigurationError(
            f"device={device!r} with values={dtype!r}: the builder of ONNX Runtime GenAI writes {', '.join(DTYPES)} "
            f"for {' and '.join(DEVICES)}; use runtime='onnxruntime' for others."
        )
    if find_spec("onnxruntime_genai") is None:
        raise ExportError('runtime="genai" needs ONNX Runtime GenAI: pip install "optimum-si[genai]".')
    with tempfile.TemporaryDirectory() as cache:
        # A process of its own: the builder is a program, and changes settings of the libraries that it uses.
        arguments = ["-i", str(checkpoint), "-o", str(directory), "-p", dtype, "-e", device, "-c", cache]
        command = [sys.executable, "-P", "-m", "onnxruntime_genai.models.builder", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not (directory / "genai_config.json").is_file():
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()] or ["no message"]
        raise ExportError(
            f"the builder of ONNX Runtime GenAI failed on {str(checkpoint)!r}: {lines[-1][:300]} It knows Llama, "
            "Mistral, Qwen, Phi, Gemma, Granite and some others; use runtime='onnxruntime' for the rest."
        )


def pack_weights(directory: Path, dtype: str, packing: dict[str, Any]) -> None:
    """Pack the sparse matrices of a graph in fp32, and put the kernels of this machine beside it.

    Args:
        directory: directory that :func:`build` wrote.
        dtype: dtype of the kept weights.
        packing: options of :func:`sparsify`.

    Raises:
        ExportError: when there are no kernels for this machine: GenAI cannot do without.
    """
    import onnx_ir as ir

    from optimum_si.onnx.kernels import KernelsUnavailable, library_path

    from .sparsify import sparsify

    try:
        library = library_path()
    except KernelsUnavailable as error:
        raise ExportError(f"weights='sparse' for ONNX Runtime GenAI needs the kernels: {error}") from error
    model = ir.load(str(directory / "model.onnx"))
    ir.external_data.load_to_model(model)
    sparsify(model, dtype, **packing)
    ir.save(model, str(directory / "model.onnx"), external_data="model.onnx.data")
    shutil.copyfile(library, directory / library.name)
    file = directory / "genai_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["model"]["decoder"]["session_options"]["custom_ops_library"] = library.name
    file.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
