"""Through a block layer by layer: all batches in step, in the pruned model and, where wanted, in the dense one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from greenlet import getcurrent
from torch import Tensor, nn

from optimum_si.models.experts.expert import routed_layers
from optimum_si.models.weight_view import WeightView

from .flow import BLOCK_INPUT, Point
from .further_calls import Further
from .runs import BlockRun, suspending
from .stops import Stop, WithoutHooks, read_by


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One batch at a layer.

    Args:
        batch: position of the batch.
        values: what the layer reads in the pruned model, [..., d_in].
        dense: the same in the dense model; None where that has no such call, or one with other tokens.
        mask: True at real tokens, or None.
        stream_error: what the residual stream of the dense model is ahead of the pruned model's, [..., d_out], before
            the layer writes to it; None where it does not.
        further: what the layer reads besides, in later calls of the same pass.
    """

    batch: int
    values: Tensor
    dense: Tensor | None
    mask: Tensor | None
    stream_error: Tensor | None
    further: Sequence[Tensor] = ()


class Activation:
    """What one layer reads or several do; measured for the first, and known to the others.

    Attributes:
        views: those that were reached.
        known: what was measured of it, by whatever name.
    """

    def __init__(self, values: Sequence[Tensor]) -> None:
        self.views: list[WeightView] = []
        self.known: dict[Any, Any] = {}
        # Not kept alive: a tensor that is gone cannot be read again.
        self._values = [ref(value) for value in values]

    @property
    def is_alive(self) -> bool:
        """Whether another layer may still read it."""
        return all(known() is not None for known in self._values)

    def is_made_of(self, values: Sequence[Tensor]) -> bool:
        """Whether these are the very tensors."""
        return len(values) == len(self._values) and all(
            known() is value for known, value in zip(self._values, values, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Reached:
    """A layer that all batches have come to, which now wait for its weights.

    Args:
        views: weights of it that are pruned.
        activation: what they read.
        calls: of all batches that call it.
    """

    views: Sequence[WeightView]
    activation: Activation
    calls: Sequence[LayerCall]


class LayerWalk:
    """The calls of one block, suspended at each of its layers until these have their weights.

    Args:
        block: with dense weights, in the dtype to compute in.
        views: weights to stop at.
        stops: the block's call for each batch in the pruned model, in the dtype to compute in.
        dense_stops: the same in the dense model; None where nobody asks.
        stream: for layers that write to the residual stream, the points whose sum it is before.
        further: for layers that are called more than once, what they read after that.

    Attributes:
        weights: of layers that were decided, by view name, [d_out, d_in] and bias [d_out] or None; whoever iterates
            fills in those of a layer before going on to the next.
        outputs, dense_outputs: what the block returned for each batch, after the last layer.
    """

    def __init__(
        self,
        block: nn.Module,
        views: Iterable[WeightView],
        stops: Sequence[Stop],
        dense_stops: Sequence[Stop] | None = None,
        stream: Mapping[nn.Module, tuple[Point, ...]] | None = None,
        further: Further | None = None,
    ) -> None:
        self.block, self.stream, self.further = block, stream or {}, further or {}
        self.views: dict[nn.Module, list[WeightView]] = {}
        for view in views:
            self.views.setdefault(view.module, []).append(view)
        self.modules = list(self.views)
        self.stops, self.dense_stops = stops, dense_stops
        self.weights: dict[str, tuple[Tensor, Tensor | None]] = {}
        self.outputs: list[Any] = []
        self.dense_outputs: list[Any] = []
        self._points = {point for points in self.stream.values() for point in points if point != BLOCK_INPUT}
        self._seen: dict[tuple[BlockRun, Point], Tensor] = {}
        self._decided: set[int] = set()
        # The dense model may send other tokens there.
        self._routed = routed_layers(block)

    @torch.no_grad()
    def __iter__(self) -> Iterator[Reached]:
        runs = [BlockRun(self.block, stop) for stop in self.stops]
        dense = [BlockRun(self.block, stop) for stop in self.dense_stops or ()]
        handles = self._watch()
        activations: list[Activation] = []
        try:
            with suspending(self.modules, BlockRun):
                for run in [*runs, *dense]:
                    run.resume()
                while waiting := [run.stop.index for run in runs if run.stop is not None]:
                    # Batches may leave layers out, such as experts: those that are behind come first.
                    index = min(waiting)
                    if index not in self._decided:
                        yield self._reached(index, runs, dense, activations)
                        self._decided.add(index)
                    for run in runs:
                        if run.stop is not None and run.stop.index == index:
                            run.resume(self._answer(run.stop))
                for run in dense:
                    self._catch_up(run, None)
            self.outputs, self.dense_outputs = [run.output for run in runs], [run.output for run in dense]
        finally:
            for handle in handles:
                handle.remove()
            for run in [*runs, *dense]:
                run.close()
            self._seen.clear()

    def _reached(
        self, index: int, runs: list[BlockRun], dense: list[BlockRun], activations: list[Activation]
    ) -> Reached:
        module = self.modules[index]
        views, calls = self.views[module], []
        for batch, run in enumerate(runs):
            if run.stop is None or run.stop.index != index:
                continue
            other = None
            if dense:
                self._catch_up(dense[batch], index)
                other = dense[batch]
            calls.append(self._call(batch, run, run.stop, other, self.stream.get(module)))
        values = [call.values for call in calls]
        # What was measured of the others may be large.
        activations[:] = [known for known in activations if known.is_alive]
        activation = next((known for known in activations if known.is_made_of(values)), None)
        if activation is None:
            activation = Activation(values)
            activations.append(activation)
        activation.views.extend(views)
        return Reached(views, activation, calls)

    def _call(
        self, batch: int, run: BlockRun, stop: Stop, dense: BlockRun | None, before: tuple[Point, ...] | None
    ) -> LayerCall:
        values = stop.hidden
        known = dense is not None and dense.stop is not None and dense.stop.index == stop.index
        other = dense.stop.hidden if dense is not None and dense.stop is not None and known else None
        tokens = values.numel() // values.shape[-1]
        expert = self.modules[stop.index] in self._routed
        routed = expert or (not run.block_stop.gives(values) and tokens != run.block_stop.hidden[..., 0].numel())
        if other is not None and (routed or other.shape != values.shape):
            other = None  # other tokens may have come here in the dense model
        error = None
        if dense is not None and other is not None and before is not None:
            error = sum(self._at(dense, point) - self._at(run, point) for point in before)
        mask = None if expert else stop.mask
        further = self.further.get(self.modules[stop.index])
        again = () if further is None else further[batch]
        return LayerCall(batch, values, other, mask, error if isinstance(error, Tensor) else None, again)

    def _catch_up(self, run: BlockRun, index: int | None) -> None:
        """Let a dense run pass layers that are decided, up to one that is not; all of them where no index is given."""
        while run.stop is not None and run.stop.index != index and (index is None or run.stop.index in self._decided):
            run.resume()

    def _answer(self, stop: Stop) -> Any:
        """What a layer returns with the weights that were decided for it."""
        module = self.modules[stop.index]
        overrides: dict[str, Tensor] = {}
        for view in self.views[module]:
            view.override(overrides, "block.", *self.weights[view.name])
        return torch.func.functional_call(WithoutHooks(module), overrides, stop.args, stop.kwargs)

    def _at(self, run: BlockRun, point: Point) -> Tensor:
        hidden = run.block_stop.hidden
        return hidden if point == BLOCK_INPUT else self._seen[run, point].reshape(hidden.shape)

    def _watch(self) -> list[Any]:
        """Keep what passes by the points of the residual stream, for each run."""

        def note(point: Point, value: Any) -> None:
            run = getcurrent()
            if isinstance(run, BlockRun):
                self._seen[run, point] = value

        handles: list[Any] = []
        for point in self._points:
            assert point.module is not None
            if point.side == "input":
                handles.append(
                    point.module.register_forward_pre_hook(
                        lambda module, args, kwargs, point=point: note(point, read_by(args, kwargs)), with_kwargs=True
                    )
                )
            else:
                handles.append(
                    point.module.register_forward_hook(lambda module, args, output, point=point: note(point, output))
                )
        return handles
