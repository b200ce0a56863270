"""Opening an exported graph: what is damaged or missing is found before it computes."""

import mmap
import tempfile
from pathlib import Path
from typing import Any

from optimum_si.errors import CheckpointError, ConfigurationError, ProviderError
from optimum_si.onnx.external_data import check_external_data
from optimum_si.onnx.manifest import check_files
from optimum_si.onnx.requirements import require_runtime
from optimum_si.warnings import warn

from .providers import Provider, providers


def open_session(path: Path, chosen: list[Provider] | None, options: Any = None, verify: bool = True) -> Any:
    """An ``onnxruntime.InferenceSession``.

    Args:
        path: the graph; its weights lie beside it and are mapped.
        chosen: providers; None is the CPU.
        options: ``onnxruntime.SessionOptions``.
        verify: compare the files with the checksums that the export recorded; about a second for each GB.

    Raises:
        ConfigurationError: for providers or options of another type.
        CheckpointError: for files that are missing, truncated, damaged or no graph.
        ProviderError: when a provider that was asked for could not be loaded.
    """
    require_runtime()
    import onnxruntime

    if not path.is_file():
        found = sorted(file.name for file in path.parent.glob("*")) if path.parent.is_dir() else []
        raise CheckpointError(
            f"{str(path.parent)!r} holds no {path.name} (it has {', '.join(found) or 'nothing'}): give a directory "
            "that `optimum-cli si export` wrote."
        )
    chosen = providers("cpu") if chosen is None else chosen
    if not isinstance(chosen, list) or not chosen:
        raise ConfigurationError(
            f"providers={chosen!r}: expected a list such as ['CPUExecutionProvider'], or leave it out and give device."
        )
    if options is not None and not isinstance(options, onnxruntime.SessionOptions):
        raise ConfigurationError(
            f"session_options={options!r}: expected an onnxruntime.SessionOptions, with its attributes set."
        )
    check_files(path, verify)
    check_external_data(path)
    try:
        session = _opened(path, options, chosen)
    except Exception as error:  # ONNX Runtime has classes of errors of its own, without a common base
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"ONNX Runtime cannot open {str(path)!r}: {reason} Export the model again.") from error
    first = chosen[0] if isinstance(chosen[0], str) else chosen[0][0]
    if first not in session.get_providers():
        raise ProviderError(
            f"{first} was asked for and could not be loaded, only {', '.join(session.get_providers())}: its CUDA, "
            "cuDNN or TensorRT libraries are missing or of another version; ONNX Runtime printed which above."
        )
    return session


def _opened(path: Path, options: Any, chosen: list[Provider]) -> Any:
    """A session; packed weights by the sparse kernels, or expanded where there are none."""
    import onnxruntime

    from optimum_si.onnx.kernels import library_path
    from optimum_si.onnx.packed_nodes import DOMAIN

    def session() -> Any:
        return onnxruntime.InferenceSession(str(path), options, providers=chosen)

    if not _names(path, DOMAIN):
        return session()
    if options is not None:
        # They may know the kernels, from another model or from a call of their own, and cannot be asked; registering
        # them twice would spoil them. A graph with unknown operators is refused before its weights are read.
        try:
            return session()
        except Exception as error:
            if "is not a registered function/op" not in str(error):
                raise
    options = options or onnxruntime.SessionOptions()
    try:
        options.register_custom_ops_library(str(library_path()))
    except Exception as error:  # none (KernelsUnavailable), or it cannot be loaded here, or computes the wrong thing
        warn(
            f"{str(path)!r} is computed with dense weights, as slow and large as if nothing had been pruned: {error}",
        )
        return _densified(path, options, chosen)
    return session()


def _names(path: Path, text: str) -> bool:
    """Whether a file holds a text; mapped, for graphs with weights inside reach two gigabytes."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text.encode()) >= 0


def _densified(path: Path, options: Any, chosen: list[Provider]) -> Any:
    import onnx_ir as ir
    import onnxruntime

    from .densify import densify

    model = ir.load(str(path))
    densify(model)
    # Mapped files outlive their names.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        dense = Path(folder) / path.name
        ir.save(model, str(dense), external_data=f"{path.name}.data")
        return onnxruntime.InferenceSession(str(dense), options, providers=chosen)
