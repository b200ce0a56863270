"""One input of a block's layers, as the pruned model and as the dense model give it."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from optimum_si.algorithms.block_state import Batch, BlockState, Weights
from optimum_si.linalg.moments import MomentAccumulator, Moments
from optimum_si.linalg.paired_moments import PairedMoments
from optimum_si.models.forward.layer_inputs import LayerInput


class _Reached(Exception):
    """Raised where nothing of the block is needed any more."""


class _Probe:
    """Input of a layer, and with ``readout`` its output and the stream that this joins, from one run of a block.

    Args:
        layer: whose input is wanted.
        readout: where the stream can be read, see :func:`optimum_si.models.forward.residual_stream.stream_readouts`.
    """

    def __init__(self, layer: nn.Module, readout: nn.Module | str | None) -> None:
        self.layer, self.readout = layer, readout
        self.input: Tensor | None = None
        self.written: Tensor | None = None
        self.stream: Tensor | None = None

    def at(self, run: Callable[[], Tensor]) -> "_Probe":
        """Fill in what ``run`` passes by, and stop it where that is all."""
        handles = [self.layer.register_forward_pre_hook(self._enter)]
        if self.readout is not None:
            handles.append(self.layer.register_forward_hook(self._leave))
        if isinstance(self.readout, nn.Module):
            handles.append(self.readout.register_forward_pre_hook(self._arrive))
        try:
            self.stream = run()
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return self

    def _enter(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self.input is None:
            self.input = args[0]
        if self.readout is None:
            raise _Reached

    def _leave(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if self.written is None:
            self.written = output

    def _arrive(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self.written is not None:
            self.stream = args[0]
            raise _Reached

    def tokens(self, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Inputs [n, d_in], and what the stream holds beside the layer's output [n, d_out]; padding left out."""
        assert self.input is not None
        if self.readout is None:
            return _flat(self.input, mask), None
        assert self.stream is not None and self.written is not None, "a readout shows the stream after the layer"
        return _flat(self.input, mask), _flat(self.stream, mask) - _flat(self.written, mask)


@torch.no_grad()
def paired_moments(
    state: BlockState,
    layer_input: LayerInput,
    readout: nn.Module | str | None,
    weights: Weights,
    batches: Iterable[Batch],
) -> PairedMoments | None:
    """Moments of one input of the block's layers in both models.

    Args:
        state: the block.
        layer_input: one activation.
        readout: where the residual stream can be read that its only reader writes to; None where there is none.
        weights: of all layers of the block, those before the input as they were fitted.
        batches: of calibration data.

    Returns:
        None where no batch reaches the input (an expert that no token is routed to).
    """
    total: PairedMoments | None = None
    for batch in batches:
        found = _of_batch(state, layer_input.views[0].module, readout, weights, batch)
        if found is not None:
            total = found if total is None else total.merged(found)
    return total


def _of_batch(
    state: BlockState, layer: nn.Module, readout: nn.Module | str | None, weights: Weights, batch: Batch
) -> PairedMoments | None:
    stop = batch.inputs
    after_pruned = _Probe(layer, readout).at(partial(state.run, stop, weights))
    after_dense = _Probe(layer, readout).at(partial(batch.dense_inputs.run, state.block))
    if after_pruned.input is None or not after_pruned.input.numel():
        return None
    mask = stop.mask_of(after_pruned.input)
    x_sparse, beside_sparse = after_pruned.tokens(mask)
    rows = after_pruned.input.numel() // after_pruned.input.shape[-1]
    routed = not stop.gives(after_pruned.input) and rows != stop.hidden[..., 0].numel()
    if routed or after_dense.input is None or after_dense.input.shape != after_pruned.input.shape:
        # Other tokens may have come here in the dense model: only the pruned model's are known.
        residual = None if beside_sparse is None else torch.zeros_like(beside_sparse)
        return PairedMoments.of(x_sparse, x_sparse, residual)
    x_dense, beside_dense = after_dense.tokens(mask)
    residual = None if beside_sparse is None or beside_dense is None else beside_dense - beside_sparse
    return PairedMoments.of(x_sparse, x_dense, residual)


def moments_after_pruning(
    state: BlockState, layer_input: LayerInput, weights: Weights, norm_params: Mapping[str, Tensor]
) -> Moments | None:
    """Moments of an input in the pruned model, full Gram matrix included.

    Args:
        state: the block.
        layer_input: one activation.
        weights: of all layers of the block.
        norm_params: further parameters of the block, by name inside it.

    Returns:
        None where the block has no batches, or none of them reaches the input.
    """
    layer, accumulator = layer_input.views[0].module, None
    same = state.training is state.validation
    for batch in state.training if same else [*state.validation, *state.training]:
        probe = _Probe(layer, None).at(partial(state.run, batch.inputs, weights, norm_params))
        if probe.input is not None:
            tokens, _ = probe.tokens(batch.inputs.mask_of(probe.input))
            accumulator = accumulator or MomentAccumulator(tokens.shape[1], True, tokens.device)
            accumulator.add(tokens)
    return None if accumulator is None else accumulator.moments()


def _flat(values: Tensor, mask: Tensor | None) -> Tensor:
    tokens = values.reshape(-1, values.shape[-1])
    return tokens[mask.reshape(-1)] if mask is not None and mask.numel() == len(tokens) else tokens
