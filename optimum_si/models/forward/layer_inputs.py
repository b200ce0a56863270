"""One pass of calibration data through a block: moments and a sample of every weight's input."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from optimum_si.errors import NumericalError
from optimum_si.linalg.moments import MomentAccumulator, Moments
from optimum_si.models.weight_view import WeightView

from .calls import Call


#: Tokens kept of each input, evenly spread over the calibration data: for medians and for reported errors.
SAMPLE_SIZE = 2048


@dataclass(frozen=True, eq=False)
class Site:
    """One activation, and the weights that read it.

    Args:
        views: readers of the activation.
        moments: of all its tokens.
        sample: up to SAMPLE_SIZE tokens, [n, d_in].
    """

    views: list[WeightView]
    moments: Moments
    sample: Tensor


class _Collector:
    """Moments and a sample of one activation, fed by the first of its readers."""

    def __init__(self, tokens: int) -> None:
        self.every = -(-tokens // SAMPLE_SIZE)
        self.seen = 0
        self.moments: MomentAccumulator | None = None
        self.sample: list[Tensor] = []

    def add(self, values: Tensor, mask: Tensor | None, gram: bool) -> None:
        tokens = values.detach().reshape(-1, values.shape[-1])
        if mask is not None and mask.numel() == len(tokens):
            tokens = tokens[mask.reshape(-1)]
        if self.moments is None:
            self.moments = MomentAccumulator(tokens.shape[1], gram, tokens.device)
        # The sample takes tokens by their number in the whole data, whatever the batch size.
        self.sample.append(tokens[(-self.seen) % self.every :: self.every].clone())
        self.seen += len(tokens)
        self.moments.add(tokens)


def collect(
    block: nn.Module,
    views: list[WeightView],
    batches: Iterable[tuple[Tensor, Call, Tensor | None, Tensor | None]],
    tokens: int,
    gram: bool,
    keep_outputs: bool,
) -> tuple[list[Site], list[Tensor] | None]:
    """Run a block over all batches.

    Args:
        block: with its weights in the dtype to compute in.
        views: weights whose inputs are wanted.
        batches: (hidden states, call, padding mask, padding mask of other states in the call) of each batch.
        tokens: real tokens in all batches.
        gram: collect full Gram matrices instead of their diagonals.
        keep_outputs: return the block's outputs too.

    Returns:
        The input sites of ``views``, in module order, and the block's outputs for each batch, or None.

    Raises:
        NumericalError: names the layer whose input holds NaN or infinity.
    """
    by_module: dict[nn.Module, list[WeightView]] = {}
    for view in views:
        by_module.setdefault(view.module, []).append(view)
    source: dict[nn.Module, nn.Module] = {}
    collectors: dict[nn.Module, _Collector] = {}
    mask: Tensor | None = None
    other_mask: Tensor | None = None
    others: set[int] = set()
    # Activations of the current batch, by the module that read them first; alive, so that ids stay unique.
    read: list[tuple[Tensor, nn.Module]] = []

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if module not in source:
            source[module] = next((first for values, first in read if values is args[0]), module)
            if source[module] is module:
                collectors[module] = _Collector(tokens)
        if source[module] is module:
            read.append((args[0], module))
            collectors[module].add(args[0], other_mask if id(args[0]) in others else mask, gram)

    handles = [module.register_forward_pre_hook(hook) for module in by_module]
    outputs = []
    try:
        with torch.no_grad():
            for hidden, call, padding, other_padding in batches:
                # Cast first, so that the states which layers read are the very ones of the call.
                mask, other_mask, call = padding, other_padding, call.cast(hidden.dtype)
                others = call.states()
                output = call.run(block, hidden)
                if keep_outputs:
                    outputs.append(output)
                read.clear()
    finally:
        for handle in handles:
            handle.remove()
    return [_site(module, by_module, source, collectors) for module in collectors], outputs if keep_outputs else None


def _site(
    module: nn.Module,
    by_module: dict[nn.Module, list[WeightView]],
    source: dict[nn.Module, nn.Module],
    collectors: dict[nn.Module, _Collector],
) -> Site:
    views = [view for reader, first in source.items() if first is module for view in by_module[reader]]
    accumulator = collectors[module].moments
    assert accumulator is not None
    moments = accumulator.moments()
    if not moments.is_finite():
        raise NumericalError(
            f"the input of layer {views[0].name!r} holds NaN or infinity: check the model's weights and dtype "
            "(float16 overflows easily; try dtype='float32') and the calibration data."
        )
    return Site(views, moments, torch.cat(collectors[module].sample))
