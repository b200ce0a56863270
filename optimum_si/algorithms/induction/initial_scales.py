"""Where the learning of scales starts, and which scales can move a mask at all."""

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockState
from optimum_si.models.scale_groups import ScaleGroup

from .scales import activation_scale, normalized_log, robust_scale


def initial_logs(state: BlockState, initialization: str, max_scale: float) -> dict[str, Tensor]:
    """log s that training starts from, for every scale that can move a mask.

    A layer's own scale starts at 1 where the layer also has a shared one.
    """
    started: set[str] = set()
    logs = {}
    for group in state.scale_groups:
        readers = [scaled.view.name for scaled in group.consumers()]
        if _can_move(group, state):
            kind = "ones" if started.intersection(readers) else initialization
            logs[group.name] = _initial_log(group, state, kind, max_scale).requires_grad_()
        started.update(readers)
    return logs


def _initial_log(group: ScaleGroup, state: BlockState, initialization: str, max_scale: float) -> Tensor:
    """log s, [group.size], in the dtype of the weights."""
    reference = state.layers[0].weight
    found = [(scaled, layer) for scaled in group.consumers() for layer in state.layers if layer.view is scaled.view]
    if not found or initialization == "ones":
        return torch.zeros(group.size, dtype=reference.dtype, device=reference.device)
    scaled, layer = found[0]
    if initialization == "robust":
        scale = robust_scale(state.sample(layer), layer.moments)
    else:
        scale = activation_scale(layer.moments)
    index = None if scaled.index is None else scaled.index.to(scale.device)
    return normalized_log(scale, index, group.size, max_scale).to(reference.dtype)


def _can_move(group: ScaleGroup, state: BlockState) -> bool:
    """Whether a value of s can change a mask: not rows only, under a threshold of each row or N:M group."""
    names = {layer.view.name for layer in state.layers}
    if any(scaled.view.name in names for scaled in group.consumers()):
        return True
    shared = state.method.ranks_rows_together and any(layer.target.shares_rows for layer in state.layers)
    return shared and group.rows_only and any(scaled.view.name in names for scaled in group.axes)
