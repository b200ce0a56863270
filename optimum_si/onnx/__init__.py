"""ONNX Runtime: ``export`` a model, choose ``providers``, run it with ``ORTSIModel`` and ``ORTSIModelForCausalLM``.

Names load on first use, so that the command line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .causal import ORTSIModelForCausalLM
    from .execution import providers
    from .exporting import export
    from .modeling import ORTSIModel

_PUBLIC = {
    "export": "exporting",
    "ORTSIModel": "modeling",
    "ORTSIModelForCausalLM": "causal",
    "providers": "execution",
}

__all__ = ["ORTSIModel", "ORTSIModelForCausalLM", "export", "providers"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'optimum_si.onnx' has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
