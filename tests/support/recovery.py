"""A pruned model with what it answered while it was dense."""

from pathlib import Path

import torch
from support.models import calibration, prune, save_with_tokenizer, tiny
from transformers import PreTrainedModel

from optimum_si import SIConfig, SIPruner
from optimum_si.algorithms.recovery.recover import Recovered, recover
from optimum_si.algorithms.recovery.references import References
from optimum_si.config.recovery import RecoveryConfig
from optimum_si.models.forward.modes import evaluation_mode, without_cache
from optimum_si.models.structure import find_structure


#: Large steps and few: tiny random models have far to go.
FAST = {"epochs": 2, "learning_rate": 1e-3}


def references_of(model: PreTrainedModel, windows=None, batch_size: int = 2, seed: int = 0, **options) -> References:
    """What a model answers for windows, 16 of 16 tokens where none are given."""
    name = model.config.model_type
    windows = calibration(name if name in ("vit", "t5") else "") if windows is None else windows
    with evaluation_mode(model), without_cache(model):
        return References.of(model, windows, batch_size, seed, **options)


def pruned_with_references(name: str, dtype: torch.dtype = torch.float32, **options):
    """A model at 2:4 by magnitude, and its answers before."""
    model = tiny(name, dtype)
    references = references_of(model, **options)
    return prune(model, "magnitude", pattern="2:4", induction=None).model, references


def recovered(model: PreTrainedModel, references: References, settings=None, **options) -> Recovered:
    """:func:`recover` with large steps."""
    return recover(model, find_structure(model), references, RecoveryConfig(**{**FAST, **(settings or {})}), **options)


def held_out_loss(model: PreTrainedModel, references: References) -> float:
    """Mean distance from the dense model's answers on the held-out windows."""
    with evaluation_mode(model), without_cache(model):
        return references.for_model(model).held_out_loss()


def save_pruned(folder: Path, texts: list[str]) -> None:
    """A tiny model in "dense", pruned by a plain recipe in "pruned", and the text of its calibration in a file."""
    save_with_tokenizer(tiny("llama"), folder / "dense", " ".join(texts))
    (folder / "text.txt").write_text("\n\n".join(texts), encoding="utf-8")
    data = {"num_samples": 4, "sequence_length": 32, "dataset": str(folder / "text.txt")}
    config = SIConfig("wanda", pattern="2:4", induction=None, calibration=data)
    SIPruner.from_pretrained(folder / "dense").prune(config, save_dir=folder / "pruned", progress=False)
