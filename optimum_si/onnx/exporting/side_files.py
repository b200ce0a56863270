"""What belongs to an export beside its graph: configs, tokenizer, and the recipe that pruned the model."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optimum_si.checkpoint.locate import find_file
from optimum_si.checkpoint.side_files import SideFiles, find_side_files
from optimum_si.config.si_config import SIConfig
from optimum_si.report import REPORT_NAME


def find_copied(source: str, required: bool, **kwargs: Any) -> SideFiles:
    """What an export takes over as it is: what belongs to the checkpoint, and the records of the run that pruned it.

    Args:
        source: directory or Hub id.
        required: warn where it cannot be looked at.
        kwargs: where on the Hub: ``revision``, ``token``, ...
    """
    found = find_side_files(source, required, **kwargs)
    for name in (SIConfig.CONFIG_NAME, REPORT_NAME) if source else ():
        if (file := find_file(source, name, **kwargs)) is not None:
            found.files[name] = file
    return found


def write_side_files(
    directory: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    copied: SideFiles,
    dtype: torch.dtype,
    has_tokenizer: bool = False,
) -> None:
    """Write configs and tokenizer, and copy files.

    Args:
        directory: directory of the export.
        model: the model, for its configs.
        tokenizer: tokenizer of the model; None where there is none.
        copied: files to copy.
        dtype: what the graph computes in, for the config.
        has_tokenizer: whether the tokenizer is in the directory already.
    """
    config = copy.deepcopy(model.config)
    config.dtype = dtype
    config.save_pretrained(directory)
    if model.can_generate():
        model.generation_config.save_pretrained(directory)
    if tokenizer is not None and not has_tokenizer:
        tokenizer.save_pretrained(directory)
    copied.save(directory, tokenizer)
