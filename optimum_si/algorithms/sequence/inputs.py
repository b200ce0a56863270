"""What is measured of a layer's input when all batches have come to it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from optimum_si.algorithms.calls import Calls
from optimum_si.algorithms.layers import Layer
from optimum_si.linalg.moments import Moments
from optimum_si.linalg.paired_moments import PairedAccumulator, PairedMoments
from optimum_si.models.forward.layer_inputs import InputCollector, check_moments, real_tokens
from optimum_si.models.forward.layer_walk import LayerCall, Reached


@dataclass(frozen=True, eq=False)
class PairedInput:
    """One input in the pruned and the dense model, with the stream's error where a layer writes to the stream.

    Args:
        training: of windows to fit to.
        held_out: of windows to choose by; the same where just one part reaches the layer.
        whole: of both.
        moments: of the pruned model's input alone, all windows.
        cache: what solvers keep for the other readers of the input.
    """

    training: PairedMoments
    held_out: PairedMoments
    whole: PairedMoments
    moments: Moments
    cache: dict[object, object] = field(default_factory=dict)

    def held_out_error(self, layer: Layer) -> Callable[[Tensor, Tensor | None], float]:
        """Of a weight and a bias: how far V x_s + b' is on held-out windows from what the dense model has there,
        W x_d + b + r; mean squared, up to a constant."""
        paired = self.held_out
        moments = paired.moments()
        gram, mean = moments.gram, moments.mean
        assert gram is not None
        target_shift = paired.target_shift(layer.weight, center=False)
        mean_target_shift = paired.mean_target_shift(layer.weight)

        def error(weight: Tensor, bias: Tensor | None) -> float:
            change = (weight - layer.weight).double()
            of_weight = ((change @ gram - 2 * target_shift) * change).sum()
            if bias is None or layer.bias is None:
                return float(of_weight)
            moved = (bias - layer.bias).double()
            return float(of_weight + (moved * (moved + 2 * change @ mean - 2 * mean_target_shift)).sum())

        return error


def single_input(reached: Reached, calls: Calls, gram: bool) -> tuple[Moments, Tensor]:
    """Moments of what is read in the pruned model, and a sample of it [n, d_in]; once for all its readers.

    Args:
        reached: the layer.
        calls: of the block.
        gram: collect the full Gram matrix instead of its diagonal.

    Raises:
        NumericalError: names the layer whose input holds NaN or infinity.
    """
    known, key = reached.activation.known, ("single", _further(reached))
    if key not in known:
        collector = InputCollector(calls.tokens)
        for call in reached.calls:
            collector.add(call.values, call.mask, gram)
            for values in call.further:
                collector.add(values, None, gram)
        found = collector.layer_input([*reached.views])
        known[key] = found.moments, found.sample
    return known[key]


def _further(reached: Reached) -> tuple[int, ...]:
    """What tells readers of one activation apart that also read others."""
    return tuple(id(values) for call in reached.calls for values in call.further)


def paired_input(reached: Reached, calls: Calls) -> tuple[PairedInput, Tensor]:
    """Co-moments of what is read in both models, and a sample of the pruned model's; once for all its readers.

    Arguments and errors as for :func:`single_input`.
    """
    writes = len(reached.views) == 1 and any(call.stream_error is not None for call in reached.calls)
    # Each layer that writes falls short by something of its own.
    known, key = reached.activation.known, reached.views[0].name if writes else ("paired", _further(reached))
    if key not in known:
        known[key] = _paired(reached, calls, reached.views[0].read() if writes else None)
    return known[key]


def _paired(reached: Reached, calls: Calls, weight: Tensor | None) -> tuple[PairedInput, Tensor]:
    """``weight`` [d_out, d_in] of the layer where it writes to the stream: then errors are those of its output."""
    accumulators: dict[bool, PairedAccumulator] = {}
    sample = InputCollector(calls.tokens)
    for call in reached.calls:
        tokens = real_tokens(call.values, call.mask)
        if not len(tokens):
            continue
        sample.keep(tokens)
        part = calls.is_held_out(call.batch)
        if part not in accumulators:
            accumulators[part] = PairedAccumulator(weight is not None)
        accumulators[part].add(tokens, _error(call, tokens, weight))
        for values in call.further:
            others = real_tokens(values, None)
            accumulators[part].add(
                others, others.new_zeros(len(others), others.shape[1] if weight is None else len(weight))
            )
    parts = {part: accumulator.moments() for part, accumulator in accumulators.items()}
    training, held_out = (parts.get(chosen, next(iter(parts.values()))) for chosen in (False, True))
    whole = training.merged(held_out) if len(parts) == 2 else training
    moments = whole.moments()
    check_moments(moments, reached.views[0])
    return PairedInput(training, held_out, whole, moments), torch.cat(sample.sample)


def _error(call: LayerCall, tokens: Tensor, weight: Tensor | None) -> Tensor:
    """What the dense model is ahead of ``tokens``, or of what the layer makes of them and of the stream it joins."""
    if call.dense is None:  # the dense model did not come here with these tokens
        return tokens.new_zeros(len(tokens), tokens.shape[1] if weight is None else len(weight))
    error = real_tokens(call.dense, call.mask) - tokens
    if weight is None:
        return error
    error = error @ weight.T
    return error if call.stream_error is None else error + real_tokens(call.stream_error, call.mask)
