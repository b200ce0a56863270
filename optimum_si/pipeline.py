"""One block through the method: collect, induce, prune, absorb. And the data streams that run beside it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .configuration import InductionConfig, SIConfig
from .induction.absorption import absorb, exact_scale, view_factor
from .induction.choose import Choice, choose
from .induction.problem import Batch, BlockProblem, Candidate, Layer, Weights, normalised
from .induction.scales import power_of_two
from .judging import ModelJudge
from .measuring import importance, layer_report, spectrum
from .models.blocks import Block, complete_channels
from .models.calls import Call, Captured
from .models.channels import Channels
from .models.collect import Site, collect
from .models.views import WeightView
from .pruning.base import PruningMethod
from .pruning.targets import Target
from .reporting.report import BlockReport, LayerReport, Spectrum


@dataclass(eq=False)
class Stream:
    """Hidden states between blocks, for every batch: one of the pruned model, one of the dense model.

    Args:
        calls: of every block, for each batch.
        masks: padding masks of each batch.
        other_masks: those of the states that a decoder's cross attention reads.
        tokens: real tokens in all batches.
        sparse: inputs of the next block, from pruned blocks.
        dense: inputs of the next block, from dense blocks; the same tensors until a block is pruned. None in a run
            without induction, which has no use for it.
    """

    calls: list[list[Call]]
    masks: list[Tensor | None]
    other_masks: list[Tensor | None]
    tokens: int
    sparse: list[Tensor]
    dense: list[Tensor] | None

    @classmethod
    def start(cls, captured: Iterable[Captured], induction: bool) -> "Stream":
        """Both streams at the first block."""
        batches = list(captured)
        hidden = [batch.hidden for batch in batches]
        tokens = sum(
            batch.hidden[..., 0].numel() if batch.mask is None else int(batch.mask.sum()) for batch in batches
        )
        calls, masks = [batch.calls for batch in batches], [batch.mask for batch in batches]
        others = [batch.other_mask for batch in batches]
        return cls(calls, masks, others, tokens, hidden, hidden if induction else None)

    def through(self, run: Callable[[Tensor, Call], Tensor], hidden: list[Tensor], number: int) -> list[Tensor]:
        """Each batch of hidden states through block ``number``, without gradients, in the dtype they are kept in."""
        with torch.no_grad():
            return [
                run(values, calls[number]).to(values.dtype) for values, calls in zip(hidden, self.calls, strict=True)
            ]


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
        method: its pruning method.
        targets: of each layer, by the name of its view.
        write: store pruned weights (``prune``), or only absorb scales (``induce``).
        judge: chooses by what the whole model loses; None chooses by the block's own output.
        held_out: batches at the start that choices are made on.
        shown: number of the block whose singular values are reported.
    """

    config: SIConfig
    method: PruningMethod
    targets: Mapping[str, Target]
    write: bool
    judge: ModelJudge | None = None
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
            plain = problem.prune(Candidate({}, shifted=False))
            choice = Choice("plain", None, weights=plain)
            if induction is not None and problem.layers:
                choice = saved or self._choose(number, problem, plain, samples, induction)
            weights = choice.weights
            if weights is None:
                weights = plain if choice.candidate is None else problem.prune(choice.candidate)
            weights = _as_stored(weights, stored)
            if not last:
                _advance(number, problem, weights, stream, targets, dtype)
            layers = self._layer_reports(problem, samples, plain, weights, choice.candidate)
            scores = importance(problem, choice.candidate)
            singular = spectrum(problem, weights) if self.write and number == self.shown else None
            if self.write:
                for layer in problem.layers:
                    _write(layer, *weights[layer.view.name])
            absorbed = _absorb(problem, choice.candidate, induction, dtypes)
            layers = [
                replace(report, absorbed=_is_absorbed(problem, layer, absorbed))
                for report, layer in zip(layers, problem.layers, strict=True)
            ]
        seconds = time.perf_counter() - started
        report = BlockReport(block.name, choice.name, choice.plain_loss, choice.loss, seconds, layers, scores)
        return Outcome(report, replace(choice, weights=None), problem.channels, absorbed, singular)

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
            self.method.needs_gram,
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
        shift = induction is not None and induction.shift
        layers = []
        for local, view in views.items():
            if view.name in site_of:
                bias = view.read_bias()
                movable = shift and bias is not None and local not in block.no_shift
                moments = site_of[view.name].moments
                layers.append(Layer(view, view.read(), bias, moments, self.targets[view.name], movable))
        batches = [
            Batch(hidden.to(dtype), calls[number], target.to(dtype), mask)
            for hidden, calls, mask, target in zip(
                stream.sparse, stream.calls, stream.masks, targets or [], strict=targets is not None
            )
        ]
        names = {
            view.name: (block.parameter_name(view, view.parameter), block.parameter_name(view, view.bias))
            for view in views.values()
        }
        if batches and induction is not None and induction.objective == "normalised":
            batches = [normalised(batch) for batch in batches]
        own = induction is not None and induction.own_scales
        channels = complete_channels(block, [site.views for site in sites], own)
        return BlockProblem(block.module, names, self.method, layers, channels, *self._split(batches))

    def _split(self, batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
        """Batches to learn from and to choose by; a single batch has to serve for both."""
        if self.config.induction is None or len(batches) < 2:
            return batches, batches
        return batches[self.held_out :], batches[: self.held_out]

    def _choose(
        self,
        number: int,
        problem: BlockProblem,
        plain: Weights,
        samples: dict[str, Tensor],
        induction: InductionConfig,
    ) -> Choice:
        # Each block draws from its own generator, so that its result does not depend on how others were treated.
        generator = torch.Generator().manual_seed(self.config.seed * 65_537 + number)

        def judged(weights: Weights) -> float:
            if self.judge is None:
                return problem.validation_loss(weights)
            return self.judge.loss(number, problem, weights)

        return choose(problem, plain, induction, samples, generator, judged)

    def _layer_reports(
        self,
        problem: BlockProblem,
        samples: dict[str, Tensor],
        plain: Weights,
        weights: Weights,
        candidate: Candidate | None,
    ) -> list[LayerReport]:
        compared = None if self.config.induction is None else plain
        goal = self.config.target_sparsity
        return [
            layer_report(problem, layer, samples[layer.view.name], compared, weights, candidate, goal, self.write)
            for layer in problem.layers
        ]


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

    def rounded(name: str, values: Tensor | None) -> Tensor | None:
        return None if values is None else values.to(stored[name]).to(values.dtype)

    return {
        name: (weight.to(stored[name]).to(weight.dtype), rounded(name, bias))
        for name, (weight, bias) in weights.items()
    }


def _advance(
    number: int,
    problem: BlockProblem,
    weights: Weights,
    stream: Stream,
    targets: list[Tensor] | None,
    dtype: torch.dtype,
) -> None:
    """Move both streams past the block."""
    stream.sparse = stream.through(
        lambda hidden, call: problem.run(hidden.to(dtype), call, weights), stream.sparse, number
    )
    if targets is not None:
        stream.dense = [target.to(hidden.dtype) for target, hidden in zip(targets, stream.sparse, strict=True)]


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
    absorbed = {}
    for channels in problem.channels:
        if channels.absorbable and channels.name in candidate.scales:
            rounded = power_of_two(candidate.scales[channels.name], channels.base)
            rounded = exact_scale(channels, rounded, dtypes)
            absorb(channels, rounded)
            absorbed[channels.name] = rounded
    return absorbed


def _is_absorbed(problem: BlockProblem, layer: Layer, absorbed: Mapping[str, Tensor]) -> bool:
    """Whether a scale other than 1 went into a layer's input channels."""
    factor = view_factor(problem.channels, absorbed, layer.view, "columns")
    return factor is not None and bool((factor != 1).any())
