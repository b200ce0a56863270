"""Stacks: every list of blocks of a model, in whatever tower, and where each gets its padding from."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from optimum_si.errors import UnsupportedModelError

from .frames import tells_frames
from .weight_view import linear_views


#: In the last part of a list's name: what is no stack of blocks.
_LEFT_ALONE = re.compile(r"adapter|head|embed|classifier|merger|projector|predict", re.IGNORECASE)
#: Inputs that mask what a tower hears, where another one masks the text.
_SOUND_MASKS = ("feature_attention_mask", "input_features_mask")


@dataclass(frozen=True, eq=False)
class Padding:
    """Where the padding of a stack is told.

    Args:
        own: input of the model that masks the hidden states; None where nothing does.
        other: input that masks the states which cross attention reads.
        frames: module that brings a mask of audio to the frames of hidden states, its own or those of the encoder;
            None without one.
    """

    own: str | None = "attention_mask"
    other: str | None = None
    frames: Any = None


@dataclass(frozen=True, eq=False)
class Stack:
    """One list of blocks.

    Args:
        name: of the list in the model, such as "model.layers".
        modules: the blocks by their names in the model; one that stands there several times is there once.
        tower: the part of the model that holds it, such as an encoder.
        padding: of its hidden states.
    """

    name: str
    modules: dict[str, nn.Module]
    tower: nn.Module
    padding: Padding

    @property
    def reads(self) -> str:
        """Name of the input that its tower reads, such as "pixel_values"."""
        return _main_input(self.tower)


def find_stacks(model: nn.Module) -> list[Stack]:
    """Every outermost list of blocks, of one class or several.

    Raises:
        UnsupportedModelError: for a model without any; names modules that it has.
    """
    found = [
        Stack(name, modules, *_tower(model, name))
        for name, modules in _lists(model, "", (nn.ModuleList,)) or _lists(model, "", (nn.ModuleList, nn.Sequential))
    ]
    if not found:
        seen = [name for name, module in model.named_modules() if name and not list(module.children())]
        raise UnsupportedModelError(
            f"{type(model).__name__} has no list of transformer blocks with nn.Linear or Conv1D weights. Modules "
            f"seen: {', '.join(seen[:12])}{', ...' if len(seen) > 12 else ''}. optimum-si prunes a ModuleList of "
            "blocks, as transformers models have."
        )
    return found


def left_alone(model: nn.Module) -> list[str]:
    """Names of lists with linear weights that are no stacks: adapters, heads, what stands between towers."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and _LEFT_ALONE.search(name.rsplit(".", 1)[-1])
        and linear_views(module, "")
    ]


def _lists(module: nn.Module, prefix: str, kinds: tuple[type, ...]) -> list[tuple[str, dict[str, nn.Module]]]:
    """Name and blocks of each outermost list in a module."""
    found = []
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        blocks = _blocks(child, full) if isinstance(child, kinds) else {}
        if blocks:
            found.append((full, blocks))
        elif not _is_left_alone(child, name):
            found += _lists(child, f"{full}.", kinds)
    return found


def _is_left_alone(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.ModuleList) and _LEFT_ALONE.search(name) is not None


def _blocks(modules: nn.Module, name: str) -> dict[str, nn.Module]:
    """The blocks in a list, lists inside it opened; none for a list of something else."""
    if _LEFT_ALONE.search(name.rsplit(".", 1)[-1]):
        return {}
    blocks: dict[str, nn.Module] = {}
    for local, child in _leaves(modules, name):
        if id(child) not in {id(known) for known in blocks.values()}:
            blocks[local] = child
    linear = [isinstance(child, nn.Linear) for child in blocks.values()]
    return {} if all(linear) or not any(linear_views(child, "") for child in blocks.values()) else blocks


def _leaves(modules: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    # Unlike named_children, with modules that stand there several times.
    for local, child in modules._modules.items():
        if isinstance(child, nn.ModuleList):
            yield from _leaves(child, f"{name}.{local}")
        elif child is not None:
            yield f"{name}.{local}", child


def _tower(model: nn.Module, name: str) -> tuple[nn.Module, Padding]:
    """The innermost ``PreTrainedModel`` around a list, and where its padding is told."""
    around = [model]
    for part in name.split(".")[:-1]:
        around.append(around[-1].get_submodule(part))
    towers = [module for module in around if isinstance(module, PreTrainedModel)]
    tower = towers[-1] if towers else model
    if _main_input(tower) == "pixel_values" and tower is not model:
        return tower, Padding(own=None)
    config: Any = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False) and re.search(r"(^|[._])decoder", name):
        return tower, Padding("decoder_attention_mask", "attention_mask", _frames(model.modules()))
    hears = tower is not model and _main_input(tower) in ("input_features", "input_values")
    own = next((mask for mask in _SOUND_MASKS if hears and mask in signature(model.forward).parameters), None)
    return tower, Padding(own or "attention_mask", frames=_frames(reversed(towers)))


def _main_input(tower: nn.Module) -> str:
    """What a tower reads; many of images (Qwen-VL, Idefics) do not say so, and take no tokens."""
    name = str(getattr(tower, "main_input_name", "input_ids"))
    sees = "image" in getattr(tower, "input_modalities", ())
    return "pixel_values" if sees and name == "input_ids" and name not in signature(tower.forward).parameters else name


def _frames(modules: Iterable[nn.Module]) -> Any:
    """The first module that tells how many frames it makes of audio; None without one."""
    return next((one for one in modules if tells_frames(one)), None)


def modules_in_several(stacks: list[Stack]) -> list[tuple[str, nn.Module]]:
    """The largest modules with linear weights that stand inside more than one block, by their first name (Zamba 2)."""
    uses = Counter(id(module) for stack in stacks for block in stack.modules.values() for module in block.modules())
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    for stack in stacks:
        for name, block in stack.modules.items():
            for local, module in block.named_modules():
                if uses[id(module)] > 1 and id(module) not in seen and local and linear_views(module, ""):
                    found.append((f"{name}.{local}", module))
                    seen |= {id(inner) for inner in module.modules()}
    return found
