"""Padding of audio: how many frames of hidden states a model makes of samples, or of frames of a spectrogram."""

from collections.abc import Iterator
from inspect import signature
from typing import Any

import torch
from torch import Tensor


#: Methods of models that tell it, for one length.
COUNTS = ("_get_feat_extract_output_lengths", "_get_subsampling_output_length")


def tells_frames(module: Any) -> bool:
    """Whether a module knows how many frames it makes."""
    return any(hasattr(module, name) for name in COUNTS)


def frames_mask(module: Any, mask: Tensor, length: int) -> Tensor:
    """A mask of audio at the frames of hidden states; as it is where they are not made of it.

    Args:
        module: that :func:`tells_frames`.
        mask: of samples, or of frames of a spectrogram, [batch, samples].
        length: frames of the hidden states.
    """
    sizes = [mask.shape[1], *mask.sum(dim=1).tolist()]
    for name in COUNTS:
        for every, *counts in _stages(module, name, sizes) if hasattr(module, name) else ():
            if every == length:
                return torch.arange(length, device=mask.device) < mask.new_tensor(counts)[:, None]
    return mask


def _stages(module: Any, name: str, sizes: list[int]) -> Iterator[list[int]]:
    """Frames of all sizes at each place: before an adapter or a pooling and behind it, and squeezed (SEW)."""
    count, squeezed = getattr(module, name), getattr(getattr(module, "config", None), "squeeze_factor", 1)
    takes_adapter = "add_adapter" in signature(count).parameters
    for options in ({"add_adapter": False}, {"add_adapter": True}) if takes_adapter else ({},):
        # One by one: some take no more.
        found = [count(torch.tensor(size), **options) for size in sizes]
        for stage in zip(*(one if isinstance(one, tuple) else (one,) for one in found), strict=True):
            yield [int(frames) for frames in stage]
            yield [int(frames) // squeezed for frames in stage]
