"""What belongs to an export beside its graph: configs, tokenizer, and the recipe that pruned the model."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optimum_si.checkpoint.locate import find_file
from optimum_si.config.si_config import SIConfig


def find_side_files(source: str, **kwargs: Any) -> list[Path]:
    """The files of a checkpoint that are copied as they are.

    Args:
        source: directory or Hub id.
        kwargs: where on the Hub: ``revision``, ``token``, ...
    """
    names = (SIConfig.CONFIG_NAME, "si_report.json", "preprocessor_config.json")
    return [found for name in names if (found := find_file(source, name, **kwargs)) is not None]


def write_side_files(
    directory: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    copied: list[Path],
    dtype: torch.dtype,
) -> None:
    """Write configs and tokenizer, and copy files.

    Args:
        directory: directory of the export.
        model: the model, for its configs.
        tokenizer: tokenizer of the model; None where there is none, or it is in the directory already.
        copied: files to copy.
        dtype: what the graph computes in, for the config.
    """
    config = copy.deepcopy(model.config)
    config.dtype = dtype
    config.save_pretrained(directory)
    if model.can_generate():
        model.generation_config.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    for file in copied:
        (directory / file.name).write_bytes(file.read_bytes())
