"""A checkpoint's model without its weights: what it consists of, whatever its size."""

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

from optimum_si.errors import CheckpointError, SIError

from .claims import check_claims
from .load import class_of, refuse_config
from .locate import place_of


def load_skeleton(path: str, **kwargs: Any) -> PreTrainedModel:
    """The model of a checkpoint, with weights that have a shape and no values.

    Args:
        path: directory or Hub id; the weights themselves are not read.
        kwargs: ``revision`` and ``subfolder``.

    Raises:
        CheckpointError: when there is no config, or its model cannot be built.
        UnsupportedModelError: for repositories that need their own code.
    """
    try:
        check_claims(path, **kwargs)
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, **place_of(kwargs))
        refuse_config(path, config, trust=False)
        model_class: Any = class_of(config)
        with torch.device("meta"):
            model: PreTrainedModel = (
                model_class.from_config(config) if hasattr(model_class, "from_config") else model_class(config)
            )
        model.tie_weights()
        return model
    except SIError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path!r} cannot be inspected: {reason} Give a directory that `save_pretrained` wrote, or a Hub id."
        ) from error
