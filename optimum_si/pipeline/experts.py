"""Experts that few tokens come to: what they are calibrated on besides."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from optimum_si.algorithms.block_state import BlockState
from optimum_si.models.experts.expert import Experts
from optimum_si.warnings import warn


@contextmanager
def topped_up(state: BlockState, fewest: int) -> Iterator[None]:
    """A block whose experts read at least ``fewest`` tokens for a while, or all there are.

    Experts that fewer tokens are sent to read further ones, evenly spread over all tokens of their layer. What these
    make of them counts in their statistics and is dropped after that.

    Args:
        state: of a block; its calls tell how many tokens each expert has.
        fewest: tokens.
    """
    layers = {
        name: module
        for name, module in state.block.named_modules()
        if isinstance(module, Experts) and module.TAKES_OTHERS
    }
    if not layers or not fewest or state.calls is None:
        yield
        return
    for module in layers.values():
        module.counted, module.seen = [0] * module.num_experts, 0
    with torch.no_grad():
        for stop in state.calls.pruned:
            stop.call(state.block)
    for name, module in layers.items():
        counts, module.counted = module.counted or [], None
        module.extra = [min(max(fewest - count, 0) / max(module.seen, 1), 1.0) for count in counts]
        untouched = [expert for expert, count in zip(module.names, counts, strict=True) if not count]
        if untouched:
            warn(
                f"no token of the calibration data is sent to {len(untouched)} of {module.num_experts} experts in "
                f"{state.name}.{name} ({', '.join(untouched[:4])}{', ...' if len(untouched) > 4 else ''}): they are "
                "pruned on tokens of the others. More data would reach them."
            )
    try:
        yield
    finally:
        for module in layers.values():
            module.extra = [0.0] * module.num_experts
