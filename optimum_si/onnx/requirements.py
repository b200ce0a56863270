"""Packages that ONNX needs, checked with what to install; two builds of ONNX Runtime exclude each other."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from packaging.version import Version

from optimum_si.errors import ExportError, ProviderError


_EXPORT = {"onnx": "1.19", "onnxscript": "0.5", "onnx_ir": "0.1.10", "transformers": "5.23", "torch": "2.9"}
_RUNTIME = "1.21"
RUNTIME_PACKAGES = ("onnxruntime", "onnxruntime-gpu")


def require_onnx() -> None:
    """Raise :class:`ExportError` when a package that exporting needs is missing or too old."""
    for name, minimum in _EXPORT.items():
        found = _installed(name.replace("_", "-"))
        if found is None:
            raise ExportError(f'exporting needs {name}, which is not installed: pip install "optimum-si[onnx]".')
        if Version(found) < Version(minimum):
            raise ExportError(f"exporting needs {name}>={minimum}, and {found} is installed: pip install -U {name}.")


def require_runtime() -> None:
    """Raise :class:`ProviderError` when ONNX Runtime is missing, too old, or installed twice."""
    found = {name: installed for name in RUNTIME_PACKAGES if (installed := _installed(name)) is not None}
    if len(found) == len(RUNTIME_PACKAGES):
        raise ProviderError(
            f"both {' and '.join(f'{name} {value}' for name, value in found.items())} are installed, and each "
            "overwrites files of the other: pip uninstall -y onnxruntime onnxruntime-gpu, then install one of them, "
            '"optimum-si[onnx]" or "optimum-si[onnx-gpu]".'
        )
    if find_spec("onnxruntime") is None:
        raise ProviderError('ONNX Runtime is not installed: pip install "optimum-si[onnx]" (or [onnx-gpu]).')
    for name, value in found.items():
        if Version(value) < Version(_RUNTIME):
            raise ProviderError(f"{name}>={_RUNTIME} is needed, and {value} is installed: pip install -U {name}.")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
