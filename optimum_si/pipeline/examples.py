"""What a run sees: the examples of its calibration data, checked against the model."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optimum_si.calibration import Reader, run_data
from optimum_si.checkpoint.load import maximum_length
from optimum_si.config.si_config import SIConfig

from .checks import check_vocabulary
from .heard_silence import without_unused_masks


def examples_of(
    config: SIConfig,
    dataset: Any,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    load_processor: Callable[[], Any],
    prunes: bool,
    progress: bool,
) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Examples that everything is measured on, and further ones for a recovery where the run has one.

    Args:
        config: of the run.
        dataset: that was given; None is the config's.
        model, tokenizer: of the user.
        load_processor: gives the model's processor, where data needs one.
        prunes: whether weights become zero.
        progress: whether to show a bar where the model writes text.

    Raises:
        CalibrationError: for data that cannot be used.
    """
    num_fresh = config.recovery.num_samples if prunes and config.recovery is not None else None
    own = model, tokenizer, maximum_length(model)
    reader = Reader.of(model, load_processor)
    examples, fresh = run_data(dataset, config.calibration, num_fresh, *own, progress, reader)
    check_vocabulary([*examples, *fresh], model)
    every = without_unused_masks([*examples, *fresh], model)
    return every[: len(examples)], every[len(examples) :]
