"""One block on its way: observe it, send it through the stages, let the runs pass it, write it."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import Batch, BlockState, Layer, Scaling, Weights, view_factor
from optimum_si.algorithms.induction.absorption import absorb, absorbed_scales, exact_scale
from optimum_si.algorithms.induction.held_out_loss import HeldOutLoss
from optimum_si.algorithms.stage import Need
from optimum_si.models.forward.layer_inputs import collect
from optimum_si.models.forward.modes import widened
from optimum_si.models.forward.stops import cast, hidden_of
from optimum_si.models.forward.streams import Stream, Streams
from optimum_si.models.scale_groups import with_score_only_groups
from optimum_si.report import BlockReport, Spectrum

from .measure import block_report, spectrum
from .plan import Plan


@dataclass(frozen=True, eq=False)
class BlockResult:
    """What became of one block.

    Args:
        report: its numbers.
        scaling: with which it was pruned; None in a run without induction.
        absorbed: powers of two that went into its weights, by scale group.
        spectrum: singular values, where this block shows them.
    """

    report: BlockReport
    scaling: Scaling | None
    absorbed: Mapping[str, Tensor]
    spectrum: Spectrum | None


def prune_block(
    plan: Plan,
    index: int,
    streams: Streams,
    num_held_out: int,
    model_loss: HeldOutLoss | None,
) -> BlockResult:
    """Treat one block, whose runs wait at it, and let them go on to the next.

    Args:
        plan: of the run.
        index: position of the block.
        streams: where all runs stand; afterwards they wait at the next block.
        num_held_out: batches at the start that choices are made on.
        model_loss: held-out loss of the whole model, or None.
    """
    started = time.perf_counter()
    block = plan.structure.blocks[index]
    dtypes = {id(parameter): parameter.dtype for parameter in block.module.parameters()}
    with widened(block.module) as dtype:
        state, dense_outputs = _observe(plan, index, streams, dtype, num_held_out, model_loss)
        if state.layers:
            for stage in plan.stages:
                state = stage(state)
        state = _as_stored(state, dtypes)
        if index < len(plan.structure.blocks) - 1:  # nobody reads what the last block returns
            _advance(state, streams, dense_outputs, dtype)
        shown = spectrum(state) if index == plan.spectrum_block else None
        report = block_report(plan, state)
        absorbed = _write_back(plan, state, dtypes)
    layers = [
        replace(of_layer, absorbed=_is_absorbed(state, layer, absorbed))
        for of_layer, layer in zip(report.layers, state.layers, strict=True)
    ]
    report = replace(report, layers=layers, seconds=time.perf_counter() - started)
    return BlockResult(report, state.scaling, absorbed, shown)


def _observe(
    plan: Plan,
    index: int,
    streams: Streams,
    dtype: torch.dtype,
    num_held_out: int,
    model_loss: HeldOutLoss | None,
) -> tuple[BlockState, list[Any]]:
    """The block as its stages find it, and what it returned in the dense model."""
    block, views = plan.structure.blocks[index], plan.views[index]
    stops = streams.pruned.stops(index)
    # Until a block has been pruned the dense model's runs would give the same.
    shares_outputs = streams.dense is not None and not streams.diverged
    layer_inputs, outputs = collect(
        block.module,
        list(views.values()),
        (stop.cast(dtype) for stop in stops),
        streams.tokens,
        gram=Need.GRAM in plan.needs,
        keep_outputs=shares_outputs,
    )
    moments = {view.name: found.moments for found in layer_inputs for view in found.views}
    layers = [
        Layer(view, view.read(), view.read_bias(), moments[view.name], plan.targets[view.name], plan.may_shift(view))
        for view in views.values()
        if view.name in moments
    ]
    induction = plan.config.induction
    own = induction is not None and induction.own_scales
    groups = with_score_only_groups(block.name, block.scale_groups, [found.views for found in layer_inputs], own)
    state = BlockState(index, block.name, block.module, plan.method, layers, layer_inputs, groups)
    if streams.dense is None:
        return state, []
    dense_stops = streams.dense.stops(index)
    if not shares_outputs:
        with torch.no_grad():
            outputs = [cast(stop.cast(dtype).call(block.module), stop.hidden.dtype) for stop in dense_stops]
    batches = [
        Batch(stop.cast(dtype), dense_stop.cast(dtype), hidden_of(output).to(dtype))
        for stop, dense_stop, output in zip(stops, dense_stops, outputs, strict=True)
    ]
    if induction is None or induction.objective == "normalized":
        batches = [batch.normalized() for batch in batches]
    # A single batch has to serve for both.
    training, validation = (batches, batches) if len(batches) < 2 else (batches[num_held_out:], batches[:num_held_out])
    return replace(state, training=training, validation=validation, model_loss=model_loss), outputs


def _as_stored(state: BlockState, dtypes: Mapping[int, torch.dtype]) -> BlockState:
    """Weights as they will be read back: later blocks are calibrated on what is saved, not on something finer."""

    def rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
        return values.to(dtype).to(values.dtype)

    weights: Weights = {}
    for layer in state.layers:
        weight, bias = state.weights[layer.view.name]
        dtype = dtypes[id(layer.view.tensor())]
        weights[layer.view.name] = rounded(weight, dtype), None if bias is None else rounded(bias, dtype)
    norm_params = {
        name: rounded(value, dtypes[id(state.block.get_parameter(name))]) for name, value in state.norm_params.items()
    }
    return replace(state, weights=weights, norm_params=norm_params)


def _advance(state: BlockState, streams: Streams, dense_outputs: list[Any], dtype: torch.dtype) -> None:
    """Let all runs pass the block: those of the pruned model with what was decided, those of the dense one with what
    it returned there."""
    streams.pruned.advance(_pruned_outputs(state, streams.pruned, dtype))
    if streams.dense is not None:
        streams.dense.advance(dense_outputs)
    streams.diverged = True


def _pruned_outputs(state: BlockState, stream: Stream, dtype: torch.dtype) -> Iterator[Any]:
    """One after the other, so that a batch's old hidden states are gone before the next one's new ones are made."""
    for run in stream.runs:
        assert run.stop is not None
        with torch.no_grad():
            output = state.call(run.stop.cast(dtype), state.weights, state.norm_params)
        yield output


def _write_back(plan: Plan, state: BlockState, dtypes: Mapping[int, torch.dtype]) -> dict[str, Tensor]:
    """Store what was decided; the powers of two that were absorbed, by the name of their scale group."""
    if plan.write:
        for layer in state.layers:
            weight, bias = state.weights[layer.view.name]
            layer.view.write(weight)
            if bias is not None:
                layer.view.write_bias(bias)
        for name, value in state.norm_params.items():
            state.block.get_parameter(name).data.copy_(value)
    induction = plan.config.induction
    if state.scaling is None or induction is None or not induction.absorb:
        return {}
    absorbed = absorbed_scales(state.scale_groups, state.scaling.scales)
    for group in state.scale_groups:
        if group.name in absorbed:
            absorbed[group.name] = exact_scale(group, absorbed[group.name], dtypes)
            absorb(group, absorbed[group.name])
    return absorbed


def _is_absorbed(state: BlockState, layer: Layer, absorbed: Mapping[str, Tensor]) -> bool:
    """Whether a scale other than 1 went into a layer's input channels."""
    factor = view_factor(state.scale_groups, absorbed, layer.view, "columns")
    return factor is not None and bool((factor != 1).any())
