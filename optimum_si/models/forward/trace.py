"""In which order a model calls its blocks, and how often: seen on one example of each kind."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.errors import CalibrationError, SIError, UnsupportedModelError
from optimum_si.models.structure import Block, Structure

from .modes import inputs_for, without_cache


@dataclass(frozen=True, eq=False)
class Trace:
    """What was seen.

    Args:
        order: names of the blocks that were called, by their first call.
        repeated: names of those that were called more than once in one forward pass.
    """

    order: Sequence[str]
    repeated: frozenset[str]


def trace(
    model: nn.Module, structure: Structure, examples: Iterable[Mapping[str, Tensor]], wanted: Sequence[str]
) -> Trace:
    """Run one example for each set of inputs that examples have.

    Args:
        model: in evaluation mode.
        structure: of the model.
        examples: calibration data, tensors with a leading dimension of 1.
        wanted: names of blocks with weights to prune.

    Raises:
        CalibrationError: for inputs that the model cannot read, or a stack with such blocks that this data does not
            reach; names what its tower reads.
        UnsupportedModelError: for a block that changes its input in place, which cannot be run twice.
    """
    kinds = {tuple(sorted(example)): example for example in reversed(list(examples))}
    order: list[str] = []
    repeated: set[str] = set()
    for example in reversed(kinds.values()):
        called = _calls(model, structure, example)
        repeated |= {name for name, count in Counter(called).items() if count > 1}
        order = _merged(order, list(dict.fromkeys(called)))
    _check_reached(model, structure, wanted, order, {name for kind in kinds for name in kind})
    return Trace(order, frozenset(repeated))


def _calls(model: nn.Module, structure: Structure, example: Mapping[str, Tensor]) -> list[str]:
    """Names of blocks in the order of their calls."""
    called: list[str] = []
    versions: list[tuple[Tensor, int]] = []

    def entering(block: Block, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        called.append(block.name)
        values = [value for value in [*args, *kwargs.values()] if isinstance(value, Tensor)]
        versions[:] = [(value, value._version) for value in values if not value.is_inference()]

    def leaving(block: Block) -> None:
        if any(value._version != version for value, version in versions):
            raise UnsupportedModelError(
                f"block {block.name!r} of {type(model).__name__} changes its own input, so it cannot be run more than "
                "once: leave its stack out (stacks=...)."
            )
        versions.clear()

    handles = []
    for block in structure.blocks:
        handles += [
            block.module.register_forward_pre_hook(
                lambda module, args, kwargs, block=block: entering(block, args, kwargs), with_kwargs=True
            ),
            block.module.register_forward_hook(lambda module, args, output, block=block: leaving(block)),
        ]
    try:
        with torch.no_grad(), without_cache(model):
            model(**inputs_for(model, dict(example)))
    except (SIError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the model's own words for inputs that it cannot read
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in example.items())
        read = dict.fromkeys(stack.reads for stack in structure.stacks)
        lacking = [name for name in read if name in signature(model.forward).parameters and name not in example]
        raise CalibrationError(
            f"{type(model).__name__} cannot read the calibration data ({shapes}): "
            f"{' '.join(str(error).split()).rstrip('.') or type(error).__name__}. "
            + (f"They lack {' and '.join(map(repr, lacking))}. " if lacking else "")
            + "Give data of the kind that it was made for."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return called


def _merged(known: list[str], found: list[str]) -> list[str]:
    """Both orders in one: what is new stands before whatever known one follows it."""
    result = list(known)
    place = 0
    for name in found:
        if name in result:
            place = result.index(name) + 1
        else:
            result.insert(place, name)
            place += 1
    return result


def _check_reached(
    model: nn.Module, structure: Structure, wanted: Sequence[str], order: Sequence[str], given: set[str]
) -> None:
    reached = {block.stack for block in structure.blocks if block.name in set(order)}
    for stack in structure.stacks:
        blocks = [block for block in structure.blocks if block.stack == stack.name and block.name in set(wanted)]
        if stack.name in reached or not blocks:
            continue
        missing = f"that tower reads {stack.reads!r}" if stack.reads not in given else "something that they lack"
        others = [name for name in dict.fromkeys(block.stack for block in structure.blocks) if name in reached]
        leave_out = f", or leave it out (stacks={others}, --stacks)" if others else ""
        raise CalibrationError(
            f"this calibration data reaches none of the {len(blocks)} blocks in {stack.name!r} of "
            f"{type(model).__name__}: its examples have {', '.join(sorted(given))}, and {missing}. Give data for that "
            f"part of the model, such as images for a vision tower{leave_out}."
        )
