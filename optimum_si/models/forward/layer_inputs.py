"""One pass of calibration data through a block: moments and a sample of every weight's input."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.errors import NumericalError
from optimum_si.linalg.moments import MomentAccumulator, Moments
from optimum_si.models.experts.expert import routed_layers
from optimum_si.models.weight_view import WeightView

from .stops import Stop, read_by


#: Tokens kept of each input, evenly spread over the calibration data: for medians and for reported errors.
SAMPLE_SIZE = 2048


@dataclass(frozen=True, eq=False)
class LayerInput:
    """One activation, and the weights that read it.

    Args:
        views: readers of the activation.
        moments: of all its tokens.
        sample: up to SAMPLE_SIZE tokens, [n, d_in].
    """

    views: list[WeightView]
    moments: Moments
    sample: Tensor


class InputCollector:
    """Moments and a sample of one activation.

    Args:
        tokens: real tokens in all batches.
    """

    def __init__(self, tokens: int) -> None:
        self.every = -(-tokens // SAMPLE_SIZE)
        self.seen = 0
        self.moments: MomentAccumulator | None = None
        self.sample: list[Tensor] = []

    def add(self, values: Tensor, mask: Tensor | None, gram: bool) -> None:
        """Add an activation [..., d_in]; ``gram`` collects the full Gram matrix instead of its diagonal."""
        tokens = real_tokens(values.detach(), mask)
        if self.moments is None:
            self.moments = MomentAccumulator(tokens.shape[1], gram, tokens.device)
        self.keep(tokens)
        self.moments.add(tokens)

    def keep(self, tokens: Tensor) -> None:
        """Take tokens [n, d_in] into the sample, by their number in the whole data, whatever the batch size."""
        self.sample.append(tokens[(-self.seen) % self.every :: self.every].clone())
        self.seen += len(tokens)

    def layer_input(self, views: list[WeightView]) -> LayerInput:
        """What was collected, as the input of ``views``.

        Raises:
            NumericalError: names a layer whose input holds NaN or infinity.
        """
        assert self.moments is not None
        moments = self.moments.moments()
        check_moments(moments, views[0])
        return LayerInput(views, moments, torch.cat(self.sample))


def real_tokens(values: Tensor, mask: Tensor | None) -> Tensor:
    """[n, features] of an activation [..., features], padding left out."""
    tokens = values.reshape(-1, values.shape[-1])
    return tokens[mask.reshape(-1)] if mask is not None and mask.numel() == len(tokens) else tokens


def check_moments(moments: Moments, view: WeightView) -> None:
    """Raise :class:`NumericalError` for NaN or infinity in the input of a layer."""
    if not moments.is_finite():
        raise NumericalError(
            f"the input of layer {view.name!r} holds NaN or infinity: check the model's weights and dtype "
            "(float16 overflows easily; try dtype='float32') and the calibration data."
        )


def collect(
    block: nn.Module,
    views: list[WeightView],
    stops: Iterable[Stop],
    tokens: int,
    gram: bool,
    keep_outputs: bool,
) -> tuple[list[LayerInput], list[Any]]:
    """Run a block over all batches.

    Args:
        block: with its weights in the dtype to compute in.
        views: weights whose inputs are wanted.
        stops: the block's call for each batch, in the dtype to compute in.
        tokens: real tokens in all batches.
        gram: collect full Gram matrices instead of their diagonals.
        keep_outputs: whether to return what the block returned too.

    Returns:
        The inputs of ``views``, in module order, and what the block returned for each batch (nothing if not kept).

    Raises:
        NumericalError: names the layer whose input holds NaN or infinity.
    """
    by_module: dict[nn.Module, list[WeightView]] = {}
    for view in views:
        by_module.setdefault(view.module, []).append(view)
    routed = routed_layers(block)
    source: dict[nn.Module, nn.Module] = {}
    collectors: dict[nn.Module, InputCollector] = {}
    current: list[Stop] = []
    # Activations of the current batch, by the module that read them first; alive, so that ids stay unique.
    read: list[tuple[Tensor, nn.Module]] = []

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = read_by(args, kwargs)
        if module not in source:
            source[module] = next((first for known, first in read if known is values), module)
            if source[module] is module:
                collectors[module] = InputCollector(tokens)
        if source[module] is module:
            read.append((values, module))
            if module in routed:
                collectors[module].add(values, None, gram)
            else:
                collectors[module].add(current[-1].for_each_example(values), current[-1].mask_of(values), gram)

    handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module in by_module]
    outputs: list[Any] = []
    try:
        with torch.no_grad():
            for stop in stops:
                current[:] = [stop]
                output = stop.call(block)
                if keep_outputs:
                    outputs.append(output)
                read.clear()
    finally:
        for handle in handles:
            handle.remove()
    return [
        collector.layer_input(
            [view for reader, first in source.items() if first is module for view in by_module[reader]]
        )
        for module, collector in collectors.items()
    ], outputs
