"""ONNX Runtime: ``export`` a model, choose ``providers``, run it with ``ORTSIModel`` and ``ORTSIModelForCausalLM``.

Names load on first use, so that the command line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from optimum_si.onnx.exporting.export import export
    from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM
    from optimum_si.onnx.runtime.modeling import ORTSIModel
    from optimum_si.onnx.runtime.providers import providers

_PUBLIC = {
    "export": "exporting.export",
    "ORTSIModel": "runtime.modeling",
    "ORTSIModelForCausalLM": "runtime.causal",
    "providers": "runtime.providers",
}

__all__ = ["ORTSIModel", "ORTSIModelForCausalLM", "export", "providers"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'optimum_si.onnx' has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
