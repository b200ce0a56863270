"""What is checked of weights and calibration data before a run changes anything."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from optimum_si.config.si_config import SIConfig
from optimum_si.errors import CalibrationError, ConfigurationError, NumericalError


def check_call(config: Any) -> None:
    """Check what a run is called with, and the mode that torch is in.

    Raises:
        ConfigurationError: for anything but a valid recipe, and inside ``torch.inference_mode()``.
    """
    if not isinstance(config, SIConfig):
        raise ConfigurationError(f"config={config!r}: expected an SIConfig.")
    config.validate()
    if torch.is_inference_mode_enabled():
        raise ConfigurationError("pruning changes weights: leave torch.inference_mode() before calling it.")


def check_finite(model: PreTrainedModel) -> None:
    """Raise :class:`NumericalError` for NaN or infinity in any parameter, pruned or not."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise NumericalError(
                f"layer {name.removesuffix('.weight')!r} holds NaN or infinity: the checkpoint is damaged, or was "
                "saved in a dtype too narrow for it. Load another copy."
            )


def check_vocabulary(examples: list[dict[str, Tensor]], model: PreTrainedModel) -> None:
    """Token ids that a model has no embedding for would end in an index error deep inside it."""
    highest = max((int(example["input_ids"].max()) for example in examples if "input_ids" in example), default=-1)
    if highest < 0:
        return
    size = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if size is not None and highest >= size:
        raise CalibrationError(
            f"the calibration data holds token {highest}, but the model embeds {size} tokens (0 to {size - 1}): "
            "use the tokenizer that belongs to this model."
        )
