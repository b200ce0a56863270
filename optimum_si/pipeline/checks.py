"""What is checked of weights and calibration data before a run changes anything."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from optimum_si.errors import CalibrationError, NumericalError


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
