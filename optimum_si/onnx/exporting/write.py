"""A graph -> files, weights beside the graph so that they are mapped and no size is too large."""

from pathlib import Path

import onnx_ir as ir

from optimum_si.version import __version__

from .trace import Trace


def write(part: Trace, directory: Path) -> Path:
    """``NAME.onnx`` and ``NAME.onnx.data`` in a directory."""
    path = directory / f"{part.name}.onnx"
    part.graph.producer_name, part.graph.producer_version = "optimum-si", __version__
    ir.save(part.graph, str(path), external_data=f"{path.name}.data")
    return path
