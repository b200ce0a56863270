"""What a directory holds: a checkpoint for PyTorch or an export for ONNX Runtime, and how large."""

from pathlib import Path

from optimum_si.errors import CheckpointError


def runtime_of(path: Path) -> str:
    """Returns "PyTorch" or "ONNX Runtime", whichever computes what is in a directory.

    Raises:
        CheckpointError: when it holds neither a checkpoint nor an export.
    """
    if any(path.glob("*.onnx")):
        return "ONNX Runtime"
    if (path / "config.json").is_file():
        return "PyTorch"
    raise CheckpointError(f"{str(path)!r} holds neither a checkpoint nor an export: give such directories.")


def weight_bytes(path: Path) -> int:
    """Returns the size of the files that hold graph and weights, of an export or a checkpoint."""
    patterns = ("*.onnx", "*.onnx.data") if any(path.glob("*.onnx")) else ("*.safetensors", "*.bin")
    return sum(file.stat().st_size for pattern in patterns for file in path.glob(pattern))
