"""One block through the method: collect, decide on its weights, write them, absorb scales."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from optimum_si.algorithms.block_state import Batch, BlockProblem, Candidate, Layer, Weights, normalized
from optimum_si.algorithms.induction.absorption import absorb, absorbed_scales, exact_scale, view_factor
from optimum_si.algorithms.induction.choose import Choice
from optimum_si.algorithms.pruning.method import PruningMethod
from optimum_si.algorithms.pruning.targets import NM, Target
from optimum_si.config.groups import InductionConfig
from optimum_si.config.si_config import SIConfig
from optimum_si.models.forward.layer_inputs import Site, collect
from optimum_si.models.forward.streams import Stream
from optimum_si.models.scale_groups import Channels
from optimum_si.models.structure import Block, complete_channels
from optimum_si.models.weight_view import WeightView
from optimum_si.report.report import BlockReport, LayerReport, Spectrum

from .deciding import Decider, Decision
from .measure import importance, layer_report, spectrum


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one block: numbers for the user, and the scales to keep."""

    report: BlockReport
    choice: Choice
    channels: list[Channels]
    absorbed: dict[str, Tensor]
    spectrum: Spectrum | None


@dataclass(frozen=True, eq=False)
class BlockStep:
    """Takes one block after another through the method.

    Args:
        config: the recipe.
        method: its pruning method, as choices are made with it.
        targets: of each layer, by the name of its view.
        write: store pruned weights (``prune``), or only absorb scales (``induce``).
        decider: chooses scales, fits and refines.
        held_out: batches at the start that choices are made on.
        shown: number of the block whose singular values are reported.
    """

    config: SIConfig
    method: PruningMethod
    targets: Mapping[str, Target]
    write: bool
    decider: Decider
    held_out: int = 0
    shown: int | None = None

    def __call__(
        self,
        number: int,
        block: Block,
        views: Mapping[str, WeightView],
        stream: Stream,
        saved: Choice | None = None,
        last: bool = False,
    ) -> Outcome:
        """Treat one block and move both streams past it.

        Args:
            number: of the block.
            block: with its dense weights.
            views: its weights to prune, by name inside the block; may be empty.
            stream: holds the inputs of this block, afterwards those of the next.
            saved: an earlier choice, taken up instead of learning.
            last: True for the last block, whose outputs nobody reads.
        """
        started = time.perf_counter()
        induction = self.config.induction
        dtypes = {id(parameter): parameter.dtype for parameter in block.module.parameters()}
        stored = {view.name: dtypes[id(view.tensor())] for view in views.values()}
        with widened(block.module) as dtype:
            sites, targets = self._observe(number, block, views, stream, dtype)
            samples = {view.name: site.sample for site in sites for view in site.views}
            problem = self._problem(number, block, views, sites, stream, targets, dtype)
            decision = self.decider(number, problem, sites, samples, saved)
            choice, weights = decision.choice, _as_stored(decision.weights, stored)
            others = {
                name: _rounded(value, dtypes[id(block.module.get_parameter(name))])
                for name, value in decision.others.items()
            }
            if not last:
                _advance(number, problem, weights, others, stream, targets, dtype)
            layers = self._layer_reports(problem, samples, decision, weights)
            scores = importance(problem, choice.candidate)
            singular = spectrum(problem, weights) if self.write and number == self.shown else None
            if self.write:
                for layer in problem.layers:
                    _write(layer, *weights[layer.view.name])
                for name, value in others.items():
                    block.module.get_parameter(name).data.copy_(value)
            absorbed = _absorb(problem, choice.candidate, induction, dtypes)
            layers = [
                replace(report, absorbed=_is_absorbed(problem, layer, absorbed))
                for report, layer in zip(layers, problem.layers, strict=True)
            ]
        seconds = time.perf_counter() - started
        report = BlockReport(
            block.name, choice.name, choice.plain_loss, choice.loss, seconds, layers, scores, decision.refined
        )
        return Outcome(report, replace(choice, weights=None), problem.channels, absorbed, singular)

    def may_shift(self, block: Block, local: str, view: WeightView) -> bool:
        """Whether the run may change the bias of a layer, called ``local`` inside its block."""
        induction = self.config.induction
        shift = self.decider.fitter is not None if induction is None else induction.shift
        return shift and view.read_bias() is not None and local not in block.no_shift

    def _observe(
        self, number: int, block: Block, views: Mapping[str, WeightView], stream: Stream, dtype: torch.dtype
    ) -> tuple[list[Site], list[Tensor] | None]:
        """Input moments on the pruned stream, and outputs of the dense block on the dense stream."""
        batches = (
            (hidden.to(dtype), calls[number], mask, other)
            for hidden, calls, mask, other in zip(
                stream.sparse, stream.calls, stream.masks, stream.other_masks, strict=True
            )
        )
        sites, outputs = collect(
            block.module,
            list(views.values()),
            batches,
            stream.tokens,
            self.method.needs_gram or self.decider.rounder is not None,
            stream.dense is not None,
        )
        if stream.dense is None or stream.dense is stream.sparse:
            return sites, outputs
        return sites, stream.through(
            lambda hidden, call: call.run(block.module, hidden.to(dtype)), stream.dense, number
        )

    def _problem(
        self,
        number: int,
        block: Block,
        views: Mapping[str, WeightView],
        sites: list[Site],
        stream: Stream,
        targets: list[Tensor] | None,
        dtype: torch.dtype,
    ) -> BlockProblem:
        site_of = {view.name: site for site in sites for view in site.views}
        induction = self.config.induction
        layers = []
        for local, view in views.items():
            if view.name in site_of:
                movable = self.may_shift(block, local, view)
                moments = site_of[view.name].moments
                layers.append(Layer(view, view.read(), view.read_bias(), moments, self.targets[view.name], movable))
        batches = self._batches(number, stream, targets, dtype)
        names = {
            view.name: (block.parameter_name(view, view.parameter), block.parameter_name(view, view.bias))
            for view in views.values()
        }
        own = induction is not None and induction.own_scales
        channels = complete_channels(block, [site.views for site in sites], own)
        return BlockProblem(block.module, names, self.method, layers, channels, *self._split(batches))

    def _batches(self, number: int, stream: Stream, targets: list[Tensor] | None, dtype: torch.dtype) -> list[Batch]:
        """The calibration data at the block; empty where nothing is chosen or fitted."""
        if targets is None or stream.dense is None:
            return []
        batches = [
            Batch(hidden.to(dtype), calls[number], target.to(dtype), mask, None, dense.to(dtype), other)
            for hidden, calls, target, mask, dense, other in zip(
                stream.sparse, stream.calls, targets, stream.masks, stream.dense, stream.other_masks, strict=True
            )
        ]
        induction = self.config.induction
        if induction is not None and induction.objective == "mse":
            return batches
        return [normalized(batch) for batch in batches]

    def _split(self, batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
        """Batches to learn from and to choose by; a single batch has to serve for both."""
        if len(batches) < 2:
            return batches, batches
        return batches[self.held_out :], batches[: self.held_out]

    def _layer_reports(
        self, problem: BlockProblem, samples: dict[str, Tensor], decision: Decision, weights: Weights
    ) -> list[LayerReport]:
        plain, candidate = decision.plain, decision.choice.candidate
        reports = []
        for layer in problem.layers:
            report = layer_report(problem, layer, samples[layer.view.name], plain, weights, candidate, self.write)
            fit = decision.fits.get(layer.view.name)
            reports.append(
                replace(
                    report,
                    pattern=_own_pattern(layer.target, self.config.pattern),
                    share=None if fit is None else fit.share,
                    damping=None if fit is None else fit.damping,
                )
            )
        return reports


@contextmanager
def widened(block: nn.Module) -> Iterator[torch.dtype]:
    """A block in fp32 (fp64 where it is fp64): mathematics happens there, and is cast back once."""
    parameters = [*block.parameters(), *block.buffers()]
    dtypes = [parameter.dtype for parameter in parameters]
    wide = torch.float64 if torch.float64 in dtypes else torch.float32
    try:
        for parameter in parameters:
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(wide)
        yield wide
    finally:
        for parameter, dtype in zip(parameters, dtypes, strict=True):
            parameter.data = parameter.data.to(dtype)


def _as_stored(weights: Weights, stored: Mapping[str, torch.dtype]) -> Weights:
    """Weights as they will be read back: later blocks are calibrated on what is saved, not on something finer."""

    return {
        name: (_rounded(weight, stored[name]), None if bias is None else _rounded(bias, stored[name]))
        for name, (weight, bias) in weights.items()
    }


def _rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype).to(values.dtype)


def _advance(
    number: int,
    problem: BlockProblem,
    weights: Weights,
    others: Mapping[str, Tensor],
    stream: Stream,
    targets: list[Tensor] | None,
    dtype: torch.dtype,
) -> None:
    """Move both streams past the block."""
    stream.sparse = stream.through(
        lambda hidden, call: problem.run(hidden.to(dtype), call, weights, others), stream.sparse, number
    )
    if targets is not None:
        stream.dense = [target.to(hidden.dtype) for target, hidden in zip(targets, stream.sparse, strict=True)]


def _own_pattern(target: Target, pattern: str | None) -> str | None:
    """A layer's pattern where it is not the run's."""
    own = f"{target.kept}:{target.of}" if isinstance(target, NM) else None
    return None if own == pattern else own


def _write(layer: Layer, weight: Tensor, bias: Tensor | None) -> None:
    layer.view.write(weight)
    if bias is not None:
        layer.view.write_bias(bias)


def _absorb(
    problem: BlockProblem,
    candidate: Candidate | None,
    induction: InductionConfig | None,
    dtypes: Mapping[int, torch.dtype],
) -> dict[str, Tensor]:
    """Fold the chosen scales, as powers of two, into the block; what went in, by the name of its channels."""
    if candidate is None or induction is None or not induction.absorb:
        return {}
    absorbed = absorbed_scales(problem.channels, candidate.scales)
    for channels in problem.channels:
        if channels.name in absorbed:
            absorbed[channels.name] = exact_scale(channels, absorbed[channels.name], dtypes)
            absorb(channels, absorbed[channels.name])
    return absorbed


def _is_absorbed(problem: BlockProblem, layer: Layer, absorbed: Mapping[str, Tensor]) -> bool:
    """Whether a scale other than 1 went into a layer's input channels."""
    factor = view_factor(problem.channels, absorbed, layer.view, "columns")
    return factor is not None and bool((factor != 1).any())
