"""A checkpoint -> a directory for ONNX Runtime GenAI, whose decode loop is C++; by GenAI's own builder."""

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ..errors import ConfigurationError, ExportError


#: What the builder stores weights as, and the providers that it writes for.
VALUES = ("fp32", "fp16", "int4")
DEVICES = ("cpu", "cuda")


def build(checkpoint: Path, directory: Path, device: str, values: str) -> None:
    """Write the graph, its weights, ``genai_config.json`` and the tokenizer.

    Args:
        checkpoint: a directory with model and tokenizer.
        directory: to write into.
        device: "cpu" or "cuda".
        values: "fp32", "fp16" or "int4".

    Raises:
        ConfigurationError: for a device or values that the builder does not have.
        ExportError: when GenAI is missing, or does not know the architecture.
    """
    if values not in VALUES or device not in DEVICES:
        raise ConfigurationError(
            f"device={device!r} with values={values!r}: the builder of ONNX Runtime GenAI writes {', '.join(VALUES)} "
            f"for {' and '.join(DEVICES)}; use runtime='onnxruntime' for others."
        )
    if find_spec("onnxruntime_genai") is None:
        raise ExportError('runtime="genai" needs ONNX Runtime GenAI: pip install "optimum-si[genai]".')
    with tempfile.TemporaryDirectory() as cache:
        # A process of its own: the builder is a program, and changes settings of the libraries that it uses.
        arguments = ["-i", str(checkpoint), "-o", str(directory), "-p", values, "-e", device, "-c", cache]
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not (directory / "genai_config.json").is_file():
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()] or ["no message"]
        raise ExportError(
            f"the builder of ONNX Runtime GenAI failed on {str(checkpoint)!r}: {lines[-1][:300]} It knows Llama, "
            "Mistral, Qwen, Phi, Gemma, Granite and some others; use runtime='onnxruntime' for the rest."
        )
