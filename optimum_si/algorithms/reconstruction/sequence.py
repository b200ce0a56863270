"""The layers of a block fitted one after the other, each to repair what the layers before it broke."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from optimum_si.algorithms.block_state import BlockState, Layer, LayerFit, Scaling, Weights, naming
from optimum_si.algorithms.pruning.targets import Target
from optimum_si.linalg.paired_moments import PairedMoments
from optimum_si.models.forward.layer_inputs import LayerInput
from optimum_si.models.forward.residual_stream import stream_readouts

from .least_squares import LeastSquares
from .method import Reconstructed
from .observe import paired_moments


#: Multiples of the damping that "auto" chooses among.
DAMPINGS = (1.0, 3.0, 10.0)
#: Rows of a layer that the choice is made on: each is fitted for itself, and all with the same repair and damping.
ROWS = 64


@dataclass(frozen=True, eq=False)
class Fitted:
    """The layers of a block.

    Args:
        weights: fitted to all windows.
        without_held_out: the same masks fitted without the held-out windows, for what is judged on those; else
            ``weights``.
        fits: how each layer was fitted.
    """

    weights: Weights
    without_held_out: Weights
    fits: dict[str, LayerFit]


@torch.no_grad()
def fit_block(
    state: BlockState,
    method: Reconstructed,
    scaling: Scaling,
    repair: float | None,
    without_held_out: bool = False,
) -> Fitted:
    """Mask and fit every layer of a block in forward order, its inputs recomputed after each.

    Args:
        state: the block.
        method: finds masks and fits.
        scaling: learned scales, which weigh scores.
        repair: fraction of the dense model's output in the targets; None chooses it and the damping for each layer,
            by the error on held-out windows.
        without_held_out: whether to fit every layer without the held-out windows, too.

    Raises:
        NumericalError: names the layer.
    """
    layers = {layer.view.name: layer for layer in state.layers}
    readouts = stream_readouts(state.block, state.validation[0].dense_inputs, [layer.view for layer in state.layers])
    weights: Weights = {name: (layer.weight, layer.bias) for name, layer in layers.items()}
    without, fits = dict(weights), {}
    for layer_input in state.layer_inputs:
        readout = readouts.get(layer_input.views[0].name) if len(layer_input.views) == 1 else None
        held_out, training = _moments(state, layer_input, readout, weights)
        for view in layer_input.views:
            layer = layers[view.name]
            with naming(layer.view):
                fitter = _Fitter.of(state, method, scaling, layer, training.merged(held_out))
                fit = LayerFit(repair or 0.0, method.settings.damping)
                if repair is None:
                    fit = fitter.choose(training, held_out)
                weights[view.name] = fitter.solve(fitter.paired, fit, layer.target)
                without[view.name] = weights[view.name]
                if without_held_out:
                    fitter = replace(fitter, pruned=weights[view.name][0])
                    without[view.name] = fitter.solve(training, fit, None)
                fits[view.name] = fit
    return Fitted(weights, without, fits)


def _moments(
    state: BlockState, layer_input: LayerInput, readout: nn.Module | str | None, weights: Weights
) -> tuple[PairedMoments, PairedMoments]:
    """Of held-out windows, and of the training windows; both of the same where just one part reaches the input."""
    held_out = paired_moments(state, layer_input, readout, weights, state.validation)
    training = None
    if state.training is not state.validation:
        training = paired_moments(state, layer_input, readout, weights, state.training)
    known = held_out or training or PairedMoments.alone(layer_input.moments)
    return held_out or known, training or known


@dataclass(frozen=True, eq=False)
class _Fitter:
    """Fits one layer.

    Args:
        method: how.
        layer: dense.
        paired: of its inputs, all windows.
        pruned: by the bare method, which gives the mask, [d_out, d_in].
        scale: learned s, [d_in], or None.
    """

    method: Reconstructed
    layer: Layer
    paired: PairedMoments
    pruned: Tensor
    scale: Tensor | None

    @classmethod
    def of(
        cls, state: BlockState, method: Reconstructed, scaling: Scaling, layer: Layer, paired: PairedMoments
    ) -> "_Fitter":
        """With the mask that the method finds under the scaling's scales."""
        moments, scale = paired.moments(), state.column_factor(scaling.scales, layer)
        if layer.shift:
            moments = moments.transformed(shift=moments.mean)
        rows = state.row_factor(scaling.scales, layer)
        pruned = method.method.prune(layer.weight, moments, layer.target, scale, rows)
        return cls(method, layer, paired, pruned, scale)

    def solve(self, paired: PairedMoments, fit: LayerFit, search: Target | None) -> tuple[Tensor, Tensor | None]:
        """Weight and bias; a bias that may change is fitted with the weight, which centers all moments."""
        layer = self.layer
        moments = paired.moments()
        gram = moments.transformed(shift=moments.mean).gram if layer.shift else moments.gram
        assert gram is not None
        target_shift = fit.repair * paired.target_shift(layer.weight, center=layer.shift)
        squares = LeastSquares.of(layer.weight, gram, fit.damping, target_shift, self.method.settings.damping_mode)
        weight = self.method.fitted(squares, self.pruned, search, layer.weight != 0, self.scale)
        if not layer.shift:
            return weight, layer.bias
        assert layer.bias is not None
        moved = fit.repair * paired.mean_target_shift(layer.weight) + (layer.weight - weight).double() @ moments.mean
        return weight, layer.bias + moved.to(layer.bias.dtype)

    def choose(self, training: PairedMoments, held_out: PairedMoments) -> LayerFit:
        """The repair and the damping whose fit to the other windows errs least on held-out ones.

        A fit is linear in the repair and its error quadratic, so that two fits tell the best repair of each damping.
        """
        rows = slice(None, None, -(-len(self.pruned) // ROWS))
        sample, training, held_out = self._rows(rows), training.outputs(rows), held_out.outputs(rows)
        error = sample._error_on(held_out)
        best: tuple[float, LayerFit] | None = None
        for factor in DAMPINGS:
            damping = self.method.settings.damping * factor
            start, start_bias = sample.solve(training, LayerFit(0.0, damping), None)
            stop, stop_bias = replace(sample, pruned=start).solve(training, LayerFit(1.0, damping), None)
            bias = None if start_bias is None or stop_bias is None else (start_bias + stop_bias) / 2
            middle = error((start + stop) / 2, bias)
            repair, least = _lowest(error(start, start_bias), middle, error(stop, stop_bias))
            if best is None or least < best[0]:
                best = least, LayerFit(repair, damping)
        assert best is not None
        return best[1]

    def _rows(self, rows: slice) -> "_Fitter":
        """The same for some output rows."""
        layer = self.layer
        bias = None if layer.bias is None else layer.bias[rows]
        layer = replace(layer, weight=layer.weight[rows], bias=bias)
        return replace(self, layer=layer, paired=self.paired.outputs(rows), pruned=self.pruned[rows])

    def _error_on(self, paired: PairedMoments) -> Callable[[Tensor, Tensor | None], float]:
        """Mean squared distance of V x_s + b' from what the dense model has there, W x_d + b + r, up to a constant."""
        layer, moments = self.layer, paired.moments()
        target_shift, mean_target_shift = (
            paired.target_shift(layer.weight, center=False),
            paired.mean_target_shift(layer.weight),
        )
        gram, mean = moments.gram, moments.mean
        assert gram is not None

        def error(weight: Tensor, bias: Tensor | None) -> float:
            change = (weight - layer.weight).double()
            of_weight = ((change @ gram - 2 * target_shift) * change).sum()
            if bias is None or layer.bias is None:
                return float(of_weight)
            moved = (bias - layer.bias).double()
            return float(of_weight + (moved * (moved + 2 * change @ mean - 2 * mean_target_shift)).sum())

        return error


def _lowest(first: float, middle: float, last: float) -> tuple[float, float]:
    """Where in [0, 1] the parabola with these values at 0, 0.5 and 1 is lowest, to a hundredth, and its value."""
    bend = 2 * (first + last - 2 * middle)
    slope = last - first - bend
    lowest = -slope / (2 * bend) if bend > 0 else float(last < first)
    repair = round(min(max(lowest, 0.0), 1.0), 2)
    return repair, first + repair * (slope + repair * bend)
