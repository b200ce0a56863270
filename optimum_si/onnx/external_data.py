"""Weights beside a graph, checked before anything maps them: a graph is a file that somebody else may have made."""

import os
import stat
from pathlib import Path
from typing import Any

from optimum_si.errors import CheckpointError


def check_external_data(path: Path) -> None:
    """Refuse a graph whose weights lie outside its own folder, are no regular files, or reach beyond their end.

    Args:
        path: of the graph.

    Raises:
        CheckpointError: names the weight; or for what is no graph.
    """
    import onnx_ir

    try:
        graph = onnx_ir.load(str(path))
        external = [
            value.const_value
            for value in _initializers(graph)
            if isinstance(value.const_value, onnx_ir.ExternalTensor)
        ]
    except Exception as error:  # of protobuf or onnx_ir, whatever is damaged
        raise CheckpointError(f"{str(path)!r} cannot be read as a graph: {error} Export the model again.") from error
    sizes: dict[str, int] = {}
    for tensor in external:
        location: Any = tensor.location
        if location not in sizes:
            sizes[location] = _size(path, location)
        if any(isinstance(size, int) and size < 0 for size in tensor.shape):
            raise CheckpointError(
                f"{str(path)!r}: weight {tensor.name!r} has the shape {list(tensor.shape)}: it is damaged, "
                "export again."
            )
        offset, length = tensor.offset or 0, tensor.length if tensor.length is not None else tensor.nbytes
        if offset < 0 or length < 0 or offset + length > sizes[location]:
            raise CheckpointError(
                f"{str(path)!r}: weight {tensor.name!r} is said to lie at {offset:,} to {offset + length:,} of "
                f"{location!r}, which has {sizes[location]:,} bytes: it was cut off, or the graph is another one's. "
                "Copy or export it again."
            )


def _initializers(model: Any) -> list[Any]:
    """Weights of the graph, of graphs inside it, and of its functions."""
    graphs = [model.graph, *(function.graph for function in model.functions.values() if hasattr(function, "graph"))]
    found = []
    for graph in graphs:
        found += graph.initializers.values()
        for node in graph.all_nodes() if hasattr(graph, "all_nodes") else graph:
            for attribute in node.attributes.values():
                inner = getattr(attribute, "value", None)
                found += getattr(inner, "initializers", {}).values()
    return found


def _size(graph: Path, location: Any) -> int:
    """Bytes of the file of a weight, which has to lie beside the graph."""
    name = Path(location if isinstance(location, str) and "\0" not in location else "")
    if not name.parts or name.is_absolute() or len(name.parts) != 1 or name.parts[0] == "..":
        raise CheckpointError(
            f"{str(graph)!r} has weights in {location!r}, outside its own folder: it is not opened. Export the model "
            "again."
        )
    file = graph.parent / name
    try:
        found = os.stat(file)
    except OSError as error:
        raise CheckpointError(
            f"{str(file)!r} is missing: copy the whole directory, or export the model again."
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{str(file)!r} is no regular file: export the model again.")
    return found.st_size
