"""One block on its way: observe it, send it through the stages, let the runs pass it, write it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.calls import Calls
from optimum_si.algorithms.induction.absorption import absorb, absorbed_scales, exact_scale
from optimum_si.algorithms.layers import Layer, Scaling, view_factor
from optimum_si.algorithms.stage import Need
from optimum_si.models.forward.flow import Flow, flow_of
from optimum_si.models.forward.layer_inputs import collect
from optimum_si.models.forward.modes import widened
from optimum_si.models.forward.streams import Stream, Streams
from optimum_si.models.scale_groups import with_score_only_groups
from optimum_si.models.weight_view import WeightView
from optimum_si.report import BlockReport, Spectrum

from .checks import check_layer
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


class BlockPruner:
    """Treats the blocks of a run, one after the other.

    Args:
        plan: of the run.
        streams: where all runs stand.
        num_held_out: batches at the start that choices are made on.
    """

    def __init__(self, plan: Plan, streams: Streams, num_held_out: int) -> None:
        self.plan, self.streams, self.num_held_out = plan, streams, num_held_out
        # What flows inside a block is the same in all of one make.
        self._flows: dict[Any, tuple[nn.Module, Flow]] = {}

    def prune(self, index: int) -> BlockResult:
        """Treat one block, whose runs wait at it, and let them go on to the next.

        Args:
            index: position of the block.
        """
        started = time.perf_counter()
        plan, block = self.plan, self.plan.structure.blocks[index]
        dtypes = {id(parameter): parameter.dtype for parameter in block.module.parameters()}
        with widened(block.module) as dtype:
            state = self._state(index, dtype, dtypes)
            if state.views:
                for stage in plan.stages:
                    state = stage(state)
            if index < len(plan.structure.blocks) - 1:  # nobody reads what the last block returns
                self._advance(state, dtype)
            shown = spectrum(state) if index == plan.spectrum_block else None
            report = block_report(plan, state)
            absorbed = _write_back(plan, state, dtypes)
        layers = [
            replace(of_layer, absorbed=_is_absorbed(state, layer, absorbed))
            for of_layer, layer in zip(report.layers, state.layers, strict=True)
        ]
        report = replace(report, layers=layers, seconds=time.perf_counter() - started)
        return BlockResult(report, state.scaling, absorbed, shown)

    def _state(self, index: int, dtype: torch.dtype, dtypes: Mapping[int, torch.dtype]) -> BlockState:
        """The block as its stages find it."""
        plan, streams = self.plan, self.streams
        block, views = plan.structure.blocks[index], list(plan.views[index].values())
        induction = plan.config.induction
        calls = Calls(
            [stop.cast(dtype) for stop in streams.pruned.stops(index)],
            None if streams.dense is None else [stop.cast(dtype) for stop in streams.dense.stops(index)],
            self.num_held_out,
            streams.tokens,
            normalized=induction is None or induction.objective != "mse",
        )
        shiftable = frozenset(view.name for view in views if plan.may_shift(view))
        state = BlockState(
            index,
            block.name,
            block.module,
            plan.method,
            views,
            targets=plan.targets,
            row_importance=plan.row_importance,
            shiftable=shiftable,
            stored=dtypes,
            calls=calls,
        )
        if views and Need.FLOW in plan.needs:
            flow = self._flow(block.module, views, calls)
            own = induction is not None and induction.own_scales
            groups = with_score_only_groups(block.name, block.scale_groups, flow.among(views), own)
            state = replace(state, flow=flow, scale_groups=groups)
        return _with_inputs(state) if views and Need.WHOLE_BLOCK in plan.needs else state

    def _flow(self, block: nn.Module, views: Sequence[WeightView], calls: Calls) -> Flow:
        names = {module: name for name, module in block.named_modules()}
        selected = tuple((names[view.module], view.shape) for view in views)
        make = type(block), tuple(names.values()), selected
        if make not in self._flows:
            layers = list({id(view.module): view.module for view in views}.values())
            self._flows[make] = block, flow_of(block, calls.pruned[0], layers)
        known, flow = self._flows[make]
        return flow if known is block else flow.in_copy(known, block)

    def _advance(self, state: BlockState, dtype: torch.dtype) -> None:
        """Let all runs pass the block: those of the pruned model with what was decided, those of the dense one with
        what the dense block returned."""
        streams, calls = self.streams, state.calls
        assert calls is not None
        outputs = state.outputs
        streams.pruned.advance(_pruned_outputs(state, streams.pruned, dtype) if outputs is None else outputs)
        if streams.dense is not None:
            dense = state.dense_outputs
            if dense is None:  # a block without weights to prune
                with torch.no_grad():
                    dense = [stop.call(state.block) for stop in calls.dense or ()]
            streams.dense.advance(dense)


def _with_inputs(state: BlockState) -> BlockState:
    """With the inputs of all layers, and what the dense block returns."""
    calls = state.calls
    assert calls is not None and calls.dense is not None
    views = list(state.views)
    gram = state.method.needs_gram
    found, _ = collect(state.block, views, calls.pruned, calls.tokens, gram=gram, keep_outputs=False)
    moments = {view.name: one.moments for one in found for view in one.views}
    layers = [state.layer(view, moments[view.name]) for view in views if view.name in moments]
    with torch.no_grad():
        outputs = [stop.call(state.block) for stop in calls.dense]
    return replace(state, layers=layers, layer_inputs=found, dense_outputs=outputs)


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
        for layer in state.layers:  # all, before any is written
            check_layer(state, layer, more_zeros=plan.config.quantization != "none")
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
