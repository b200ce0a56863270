"""Silence that fills a sound up to a fixed length: whether the model hears it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optimum_si.models.forward.modes import evaluation_mode, inputs_for, without_cache


FEATURES, MASK = "input_features", "attention_mask"
#: Relative change of an answer from which on it depends on what was changed; products of another size differ by less.
NOTICED = 1e-3


def without_unused_masks(examples: Sequence[dict[str, Tensor]], model: Any) -> list[dict[str, Tensor]]:
    """Examples, those of spectrograms without their mask where the model reads the frames that it leaves out.

    Whisper takes such a mask and attends to all of its 30 seconds nevertheless, so what pruning does to the silence
    reaches every word: without it in the statistics, Whisper base at 50% loses most of what it knows
    (docs/results.md). Models that hide these frames keep the mask.

    Args:
        examples: tensors with a leading dimension of 1, all that their model reads among them.
        model: dense; its mode is restored.
    """
    masked = next((example for example in examples if _has_silence(example)), None)
    if masked is None or not _hears(model, masked):
        return [*examples]
    return [
        {name: value for name, value in example.items() if name != MASK or not _is_spectrogram(example)}
        for example in examples
    ]


def _is_spectrogram(example: Mapping[str, Tensor]) -> bool:
    """Features [1, frequencies, T], of a fixed length T, and a mask [1, T]."""
    features, mask = example.get(FEATURES), example.get(MASK)
    return (
        features is not None
        and mask is not None
        and features.ndim == 3
        and mask.ndim == 2
        and features.shape[-1] == mask.shape[-1] != features.shape[1]
    )


def _has_silence(example: Mapping[str, Tensor]) -> bool:
    return _is_spectrogram(example) and bool(example[MASK][0, 0]) and not bool(example[MASK].all())


@torch.no_grad()
def _hears(model: Any, example: Mapping[str, Tensor]) -> bool:
    """Whether another silence behind a sound changes what the model answers first."""
    given = {name: value for name, value in example.items() if name != "labels"}
    other = given | {FEATURES: given[FEATURES] + (given[MASK] == 0).unsqueeze(1).to(given[FEATURES].dtype)}
    with evaluation_mode(model), without_cache(model):
        answers = [_first(model(**inputs_for(model, inputs))) for inputs in (given, other)]
    change = (answers[1] - answers[0]).norm()
    return bool(change > NOTICED * answers[0].norm())


def _first(output: Any) -> Tensor:
    """What is answered for the first token or frame, or for the whole."""
    values = (value for value in output.values() if isinstance(value, Tensor) and value.is_floating_point())
    found = next(values, torch.zeros(1))
    return (found[:, 0] if found.ndim > 2 else found).float()
