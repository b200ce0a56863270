"""One block on its way: observe it, send it through the stages, let the runs pass it, write it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.calls import Calls
from optimum_si.algorithms.induction.absorption import absorb, absorbed_scales, exact_scale
from optimum_si.algorithms.layers import Layer, Scaling, view_factor
from optimum_si.algorithms.stage import Need
from optimum_si.models.families.base import UNDECLARED
from optimum_si.models.finding.finder import Finder
from optimum_si.models.forward.flow import Flow, flow_of
from optimum_si.models.forward.further_calls import called_again, further_inputs
from optimum_si.models.forward.layer_inputs import collect
from optimum_si.models.forward.modes import widened
from optimum_si.models.forward.stops import Stop
from optimum_si.models.forward.streams import Streams
from optimum_si.models.scale_groups import with_score_only_groups
from optimum_si.models.weight_view import WeightView
from optimum_si.report import BlockReport, Spectrum

from .checks import check_layer
from .experts import topped_up
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
        num_held_out: batches at the start that choices are made on.
    """

    def __init__(self, plan: Plan, num_held_out: int) -> None:
        self.plan, self.num_held_out = plan, num_held_out
        # What flows inside a block is the same in all of one make.
        self._flows: dict[Any, tuple[nn.Module, Flow]] = {}
        # As are the layers that it calls more than once, by their names in it.
        self._called_again: dict[Any, frozenset[str]] = {}
        self._finder = Finder(plan.structure.shared)

    def prune(self, index: int, streams: Streams) -> BlockResult:
        """Treat one block, whose runs wait at it, and let them go on to the next.

        Args:
            index: position of the block.
            streams: where all runs stand.
        """
        pruned, last = streams.pruned.stops(index), index == len(self.plan.structure.blocks) - 1
        # Runs of the dense model may take other ways; what is compared is what both come to.
        dense = None if streams.dense is None else streams.dense.stops(index)
        calls = [(batch, stop, None if dense is None else dense.get(batch, stop)) for batch, stop in pruned.items()]
        # Nobody reads what the last block returns.
        return self._prune(index, calls, None if last else partial(self._advance, index, streams))

    def prune_shared(self, index: int, calls: Sequence[tuple[int, Stop]]) -> BlockResult:
        """Treat a block that a model calls more than once, on all its calls.

        Args:
            index: position of the block.
            calls: position of the batch and the call.
        """
        return self._prune(index, [(batch, stop, stop) for batch, stop in calls], None)

    def _prune(
        self,
        index: int,
        calls: Sequence[tuple[int, Stop, Stop | None]],
        advance: Callable[[BlockState, torch.dtype], None] | None,
    ) -> BlockResult:
        started = time.perf_counter()
        plan, block = self.plan, self.plan.structure.blocks[index]
        dtypes = {id(parameter): parameter.dtype for parameter in block.module.parameters()}
        with widened(block.module) as dtype:
            state = self._state(index, self._with_further(index, self._calls(calls, dtype)), dtypes)
            if state.views:
                with topped_up(state, plan.config.calibration.min_expert_tokens):
                    if Need.WHOLE_BLOCK in plan.needs:
                        state = _with_inputs(state)
                    for stage in plan.stages:
                        state = stage(state)
            if advance is not None:
                advance(state, dtype)
            shown = spectrum(state) if index == plan.spectrum_block else None
            report = block_report(plan, state)
            absorbed = _write_back(plan, state, dtypes)
        layers = [
            replace(of_layer, absorbed=_is_absorbed(state, layer, absorbed))
            for of_layer, layer in zip(report.layers, state.layers, strict=True)
        ]
        report = replace(report, layers=layers, seconds=time.perf_counter() - started)
        return BlockResult(report, state.scaling, absorbed, shown)

    def _calls(self, calls: Sequence[tuple[int, Stop, Stop | None]], dtype: torch.dtype) -> Calls:
        induction = self.plan.config.induction
        pruned = [stop.cast(dtype) for _, stop, _ in calls]
        dense = [stop.cast(dtype) for _, _, stop in calls if stop is not None]
        return Calls(
            pruned,
            dense or None,
            self.num_held_out,
            sum(stop.num_tokens for stop in pruned),
            [batch for batch, _, _ in calls],
            normalized=induction is None or induction.objective != "mse",
        )

    def _with_further(self, index: int, calls: Calls) -> Calls:
        """With what layers read that are called more than once."""
        block = self.plan.structure.blocks[index].module
        views = list(self.plan.views[index].values())
        if not views:
            return calls
        make, names = _make(block, views), {module: name for name, module in block.named_modules()}
        if make not in self._called_again:
            found = called_again(block, calls.pruned[0], {view.module for view in views})
            self._called_again[make] = frozenset(names[module] for module in found)
        again = [block.get_submodule(name) for name in self._called_again[make]]
        return replace(calls, further=further_inputs(block, calls.pruned, again)) if again else calls

    def _state(self, index: int, calls: Calls, dtypes: Mapping[int, torch.dtype]) -> BlockState:
        """The block as its stages find it."""
        plan = self.plan
        block, views = plan.structure.blocks[index], list(plan.views[index].values())
        induction = plan.config.induction
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
            pairs = block.scale_groups
            if block.family is UNDECLARED and induction is not None:
                pairs = [*pairs, *self._finder.groups(block.module, block.views, calls.dense or calls.pruned)]
            groups = with_score_only_groups(block.name, pairs, flow.among(views), own)
            state = replace(state, flow=flow, scale_groups=groups)
        return state

    def _flow(self, block: nn.Module, views: Sequence[WeightView], calls: Calls) -> Flow:
        make = _make(block, views)
        if make not in self._flows:
            layers = list({id(view.module): view.module for view in views}.values())
            self._flows[make] = block, flow_of(block, calls.pruned[0], layers)
        known, flow = self._flows[make]
        return flow if known is block else flow.in_copy(known, block)

    def _advance(self, index: int, streams: Streams, state: BlockState, dtype: torch.dtype) -> None:
        """Let all runs pass the block: those of the pruned model with what was decided, those of the dense one with
        what the dense block returned."""
        calls = state.calls
        assert calls is not None and calls.origins is not None
        outputs = None if state.outputs is None else _committed(calls.origins, calls.pruned, state.outputs)
        streams.pruned.advance(index, outputs or _pruned_outputs(state, streams.pruned.stops(index), dtype))
        if streams.dense is None:
            return
        known = {} if state.dense_outputs is None else dict(zip(calls.origins, state.dense_outputs, strict=True))
        committed = dict(zip(calls.origins, calls.dense or (), strict=True))
        dense: dict[int, Any] = {}
        for batch, stop in streams.dense.stops(index).items():
            if batch in known:
                committed[batch].commit()
                dense[batch] = known[batch]
            else:  # a block without weights to prune, or one that the pruned run of this batch left out
                with torch.no_grad():
                    cast = stop.cast(dtype)
                    dense[batch] = cast.call(state.block)
                    cast.commit()
        streams.dense.advance(index, dense)


def _make(block: nn.Module, views: Sequence[WeightView]) -> Any:
    """What tells whether two blocks are built alike and have the same layers to prune."""
    names = {module: name for name, module in block.named_modules()}
    return type(block), tuple(names.values()), tuple((names[view.module], view.shape) for view in views)


def _committed(origins: Sequence[int], stops: Sequence[Stop], outputs: Sequence[Any]) -> dict[int, Any]:
    for stop in stops:
        stop.commit()
    return dict(zip(origins, outputs, strict=True))


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


def _pruned_outputs(state: BlockState, stops: Mapping[int, Stop], dtype: torch.dtype) -> Iterator[tuple[int, Any]]:
    """One after the other, so that a batch's old hidden states are gone before the next one's new ones are made."""
    for batch in [*stops]:
        stop = stops[batch].cast(dtype)
        with torch.no_grad():
            output = state.call(stop, state.weights, state.norm_params)
        stop.commit()
        yield batch, output


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
