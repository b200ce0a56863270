"""Graphs that several tests need are traced once: the exporter of transformers takes seconds for the tiniest model.

Only that exporter is kept from running twice on the same model, and only in tests and fixtures that ask for it. All
that this library does before and after runs in every test, and nothing is kept from one run of pytest to the next.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir
import pytest
import torch
from filelock import FileLock
from transformers import PreTrainedModel
from transformers.exporters import OnnxExporter


class TraceCache:
    """``OnnxExporter.export_program`` with a memory.

    Args:
        folder: holds the graphs; processes may share it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._remembering = _remembering(OnnxExporter.export_program, folder)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside, the exporter remembers; several may be inside each other."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OnnxExporter, "export_program", self._remembering)
            yield


def _remembering(export_program: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    def remembered(self: Any, model: PreTrainedModel, inputs: Any, config: Any) -> tuple[onnx_ir.Model, None]:
        file = folder / f"{_key(model, inputs, config)}.onnx"
        with FileLock(file.with_suffix(".lock")):
            if file.is_file():
                return _loaded(file), None
            graph, _ = export_program(self, model, inputs, config)
            onnx_ir.save(graph, file.with_suffix(".part"))
            file.with_suffix(".part").rename(file)
            return graph, None

    return remembered


def _loaded(file: Path) -> onnx_ir.Model:
    """As it was traced: shapes that are read from a file are frozen, and those of the exporter are not."""
    graph = onnx_ir.load(file)
    for value in [*graph.graph.inputs, *(output for node in graph.graph.all_nodes() for output in node.outputs)]:
        if value.shape is not None:
            value.shape = value.shape.copy(frozen=False)
    return graph


def _key(model: PreTrainedModel, inputs: Any, config: Any) -> str:
    """Of everything that a graph depends on: weights to the last bit, configs, sample inputs and options."""
    settings = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    digest = hashlib.sha256()
    _add(digest, [type(model), model.config._attn_implementation, settings, dict(tensors), inputs, config])
    return digest.hexdigest()


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        _add(digest, (str(value.dtype), tuple(value.shape)))
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        _add(digest, list(value.items()))
    elif isinstance(value, (list, tuple)):
        digest.update(f"{len(value)}:".encode())
        for entry in value:
            _add(digest, entry)
    elif hasattr(value, "__dict__") and not isinstance(value, type):  # caches and their layers
        _add(digest, [type(value), vars(value)])
    else:
        digest.update(f"{value!r};".encode())
