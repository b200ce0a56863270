"""Errors that a user can act on: each message says what was given, what is accepted and what to do."""


class SIError(Exception):
    """Base of every error that optimum-si raises on purpose."""


class ConfigurationError(SIError, ValueError):
    """A choice in ``SIConfig`` is unknown, out of range or contradicts another one."""


class CalibrationError(SIError, ValueError):
    """The calibration or evaluation data cannot be used: missing, empty or too short."""


class UnsupportedModelError(SIError, ValueError):
    """The model has nothing that can be pruned, or holds weights that must not be touched."""


class NumericalError(SIError, ArithmeticError):
    """NaN or infinity in weights or activations, or a matrix that cannot be factorized."""


class CheckpointError(SIError, OSError):
    """A checkpoint cannot be read, or the output directory cannot be written."""


class ExportError(SIError, RuntimeError):
    """A model cannot be exported to ONNX, or a package that this needs is missing."""


class ProviderError(SIError, RuntimeError):
    """An execution provider of ONNX Runtime, or a library that it needs, is missing."""


class PublishError(SIError, RuntimeError):
    """A model cannot be pushed to the Hub: no token, no right, a repository that changed, or a lost connection."""


class PictureError(SIError, ImportError):
    """Pictures cannot be drawn, for want of matplotlib."""


class TaskError(SIError, RuntimeError):
    """A task of lm-eval cannot be run: its package, its data or its metric is missing."""


def reason_of(error: BaseException) -> str:
    """The first line of what an error says, or its name where it says nothing: for a message of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
