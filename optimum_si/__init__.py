"""optimum-si: make transformer models sparse with little loss (Sparsity Induction, arXiv 2602.21652).

Public names load on first use, so that ``import optimum_si`` and the command line start without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__


if TYPE_CHECKING:
    from optimum_si.checkpoint.injected import merge_adapters
    from optimum_si.config.groups import CalibrationConfig, InductionConfig
    from optimum_si.config.recovery import RecoveryConfig
    from optimum_si.config.si_config import SIConfig
    from optimum_si.evaluation.evaluate import evaluate
    from optimum_si.evaluation.perplexity import perplexity
    from optimum_si.evaluation.tasks import task_accuracy
    from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM
    from optimum_si.onnx.runtime.modeling import ORTSIModel

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
    from .pruner import SIPruner
    from .report import Report

_PUBLIC = {
    "CalibrationConfig": "config.groups",
    "InductionConfig": "config.groups",
    "RecoveryConfig": "config.recovery",
    "SIConfig": "config.si_config",
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
    "evaluate": "evaluation.evaluate",
    "merge_adapters": "checkpoint.injected",
    "perplexity": "evaluation.perplexity",
    "ORTSIModel": "onnx.runtime.modeling",
    "ORTSIModelForCausalLM": "onnx.runtime.causal",
    "SIPruner": "pruner",
    "Report": "report",
    "task_accuracy": "evaluation.tasks",
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
