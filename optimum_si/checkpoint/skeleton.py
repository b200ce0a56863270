"""A checkpoint's model without its weights: what it consists of, whatever its size."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME

from optimum_si.errors import CheckpointError, SIError, reason_of

from .building import WITH_EXPERTS, bounded_building, check_vectors
from .claims import check_claims, check_config
from .listing import files_at
from .load import class_of, refuse_config
from .locate import find_file, place_of
from .outputs import WEIGHTS


@contextmanager
def skeleton_of(path: str, **kwargs: Any) -> Iterator[PreTrainedModel]:
    """The model of a checkpoint, with weights that have a shape and no values; what is built of it is bounded as well.

    Args:
        path: directory or Hub id; the weights themselves are neither read nor downloaded.
        kwargs: ``revision`` and ``subfolder``.

    Raises:
        CheckpointError: when there is no config, or its model cannot be built.
        UnsupportedModelError: for repositories that need their own code.
    """
    held = _bytes_of_weights(path, kwargs)
    with bounded_building(path, held):
        model = _built(path, kwargs)
    with bounded_building(path, held, WITH_EXPERTS):
        yield model


def _bytes_of_weights(path: str, kwargs: dict[str, Any]) -> int:
    """Of all files of weights, which the config must fit."""
    if Path(path).is_dir():
        return sum(file.stat().st_size for file in check_claims(path, **kwargs))
    config = find_file(path, CONFIG_NAME, **kwargs)
    if config is None:
        return 0
    size = sum(held for name, held in files_at(path, **kwargs).items() if name.endswith(WEIGHTS))
    check_config(config, size)
    return size


def _built(path: str, kwargs: dict[str, Any]) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, **place_of(kwargs))
        refuse_config(path, config, trust=False)
        model_class: Any = class_of(config)
        with torch.device("meta"):
            model: PreTrainedModel = (
                model_class.from_config(config) if hasattr(model_class, "from_config") else model_class(config)
            )
        check_vectors(path, model)
        model.tie_weights()
        return model
    except SIError:
        raise
    except Exception as error:
        reason = reason_of(error)
        raise CheckpointError(
            f"{path!r} cannot be inspected: {reason} Give a directory that `save_pretrained` wrote, or a Hub id."
        ) from error
