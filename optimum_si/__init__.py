"""optimum-si: make transformer models sparse with little loss (Sparsity Induction, arXiv 2602.21652).

Public names load on first use, so that ``import optimum_si`` and the command line start without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__


if TYPE_CHECKING:
    from .configuration import CalibrationConfig, InductionConfig, SIConfig
    from .errors import (
        CalibrationError,
        CheckpointError,
        ConfigurationError,
        ExportError,
        NumericalError,
        PictureError,
        ProviderError,
        PublishError,
        SIError,
        TaskError,
        UnsupportedModelError,
    )
    from .evaluation import perplexity
    from .onnx.causal import ORTSIModelForCausalLM
    from .onnx.modeling import ORTSIModel
    from .pruner import SIPruner
    from .reporting import Report
    from .tasks import task_accuracy

_PUBLIC = {
    "CalibrationConfig": "configuration",
    "InductionConfig": "configuration",
    "SIConfig": "configuration",
    "CalibrationError": "errors",
    "CheckpointError": "errors",
    "ConfigurationError": "errors",
    "ExportError": "errors",
    "NumericalError": "errors",
    "PictureError": "errors",
    "ProviderError": "errors",
    "PublishError": "errors",
    "SIError": "errors",
    "TaskError": "errors",
    "UnsupportedModelError": "errors",
    "perplexity": "evaluation",
    "ORTSIModel": "onnx.modeling",
    "ORTSIModelForCausalLM": "onnx.causal",
    "SIPruner": "pruner",
    "Report": "reporting",
    "task_accuracy": "tasks",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'optimum_si' has no attribute {name!r}")
    value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
