"""Execution providers of ONNX Runtime with the options that pruned models want."""

from pathlib import Path
from typing import Any

from optimum_si.config.validators import check_choice
from optimum_si.errors import ConfigurationError, ProviderError
from optimum_si.onnx.choices import DEVICES
from optimum_si.onnx.requirements import require_runtime


_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_INSTALL = {
    "cuda": (
        'pip uninstall -y onnxruntime, then pip install "optimum-si[onnx-gpu]", on a machine with an NVIDIA driver'
    ),
    "tensorrt": (
        'pip uninstall -y onnxruntime, then pip install "optimum-si[onnx-gpu]" "tensorrt-cu13<11", on a machine with '
        "an NVIDIA driver"
    ),
}

#: A provider by its name, alone or with its options.
Provider = str | tuple[str, dict[str, Any]]


def providers(
    device: str = "cpu", *, sparsity: bool | None = None, cache_dir: str | Path | None = None
) -> list[Provider]:
    """What to pass as ``providers=`` to ONNX Runtime, for a graph that was exported for the same device.

    Args:
        device: "cpu"; "cuda" or "cuda:1"; or "tensorrt", the only one that computes 2:4 matrices faster.
        sparsity: let TensorRT choose its 2:4 kernels where they time faster; None is True. Others have none.
        cache_dir: where TensorRT keeps its engines, apart for each choice of flags: a dense engine would otherwise be
            taken for a sparse one. None builds them anew for each session, which takes minutes.

    Raises:
        ConfigurationError: for an unknown device, or options that it does not have.
        ProviderError: when this ONNX Runtime lacks the provider.
    """
    name, _, index = str(device).partition(":")
    check_choice("device", name, DEVICES)
    if index and not (name == "cuda" and index.isdigit()):
        raise ConfigurationError(f"device={device!r}: expected 'cpu', 'cuda', 'cuda:1' or 'tensorrt'.")
    if name != "tensorrt" and (sparsity or cache_dir is not None):
        given = "sparsity=True" if sparsity else f"cache_dir={str(cache_dir)!r}"
        raise ConfigurationError(
            f"{given} applies to device='tensorrt' only: {_PROVIDERS[name]} has no kernels for sparse weights and "
            "builds no engines."
        )
    _check_available(name)
    if name == "cpu":
        return [_PROVIDERS["cpu"]]
    cuda: Provider = (_PROVIDERS["cuda"], {"device_id": int(index or 0)})
    if name == "cuda":
        return [cuda, _PROVIDERS["cpu"]]
    return [(_PROVIDERS["tensorrt"], _tensorrt_options(sparsity is not False, cache_dir)), cuda, _PROVIDERS["cpu"]]


def _tensorrt_options(sparsity: bool, cache_dir: str | Path | None) -> dict[str, Any]:
    options: dict[str, Any] = {"device_id": 0, "trt_fp16_enable": True, "trt_sparsity_enable": sparsity}
    if cache_dir is not None:
        folder = Path(cache_dir) / ("fp16-sparse" if sparsity else "fp16-dense")
        folder.mkdir(parents=True, exist_ok=True)
        options |= {
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": True,
            "trt_timing_cache_path": str(folder),
        }
    return options


def _check_available(name: str) -> None:
    require_runtime()
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if _PROVIDERS[name] not in available:
        raise ProviderError(
            f"device={name!r} needs {_PROVIDERS[name]}, and this ONNX Runtime {onnxruntime.__version__} has "
            f"{', '.join(available)}: {_INSTALL.get(name, 'reinstall onnxruntime')}."
        )
