"""One layer fitted to repair what the layers before it broke, and how far it should."""

from dataclasses import dataclass, replace

from torch import Tensor

from optimum_si.algorithms.layers import Layer, LayerFit
from optimum_si.algorithms.sequence.inputs import PairedInput
from optimum_si.linalg.damping import safe_damping
from optimum_si.linalg.moments import Moments
from optimum_si.linalg.paired_moments import PairedMoments

from .least_squares import DampedGram, LeastSquares
from .method import Reconstructed


#: Multiples of the damping that "auto" chooses among.
DAMPINGS = (1.0, 3.0, 10.0)
#: Rows of a layer that the choice is made on: each is fitted for itself, and all with the same repair and damping.
ROWS = 64


@dataclass(frozen=True, eq=False)
class LayerFitter:
    """Fits one layer to (1 - repair) W x_s + repair (W x_d + r), x_s its input in the pruned model, x_d in the dense.

    Args:
        method: finds masks and fits.
        layer: dense.
        paired: its inputs.
        scale: learned s, [d_in], or None.
        row_scale: what its rows are multiplied by where they are ranked together, [d_out], or None.
    """

    method: Reconstructed
    layer: Layer
    paired: PairedInput
    scale: Tensor | None = None
    row_scale: Tensor | None = None

    def solve(self, fit: LayerFit) -> tuple[Tensor, Tensor | None]:
        """Mask and fit on all windows: weight [d_out, d_in] and bias."""
        squares = self._squares("whole", fit)
        weight = self.method.fitted(squares, self._by_method, self.layer.target, self.scale, self.row_scale)
        return self._with_bias(weight, self.paired.whole, fit)

    def within(self, mask: Tensor, fit: LayerFit) -> tuple[Tensor, Tensor | None]:
        """Fit in a mask, without the held-out windows."""
        squares = self._squares("training", fit)
        weight = squares.out_of(squares.exact(mask, rough=True))
        return self._with_bias(weight, self.paired.training, fit)

    def choose(self, repair: float | None) -> LayerFit:
        """The repair and the damping whose fit to the other windows errs least on held-out ones.

        A fit is linear in the repair and its error quadratic, so that two fits tell the best repair of each damping.

        Args:
            repair: None chooses it, too.
        """
        some = self._some_rows()
        mask = some._by_method() != 0
        error = some.paired.held_out_error(some.layer)
        best: tuple[float, LayerFit] | None = None
        for damping in sorted({self._safe(self.method.settings.damping * factor) for factor in DAMPINGS}):
            if repair is None:
                start, stop = (some.within(mask, LayerFit(share, damping)) for share in (0.0, 1.0))
                middle = [None if a is None or b is None else (a + b) / 2 for a, b in zip(start, stop, strict=True)]
                share, least = _lowest(error(*start), error(*middle), error(*stop))  # type: ignore[arg-type]
            else:
                share, least = repair, error(*some.within(mask, LayerFit(repair, damping)))
            if best is None or least < best[0]:
                best = least, LayerFit(share, damping)
        assert best is not None
        return best[1]

    def _by_method(self) -> Tensor:
        moments = self._centered(self.paired.moments)
        return self.method.method.prune(self.layer.weight, moments, self.layer.target, self.scale, self.row_scale)

    def _safe(self, damping: float) -> float:
        moments = self.paired.moments
        return safe_damping(damping, moments.count, len(moments.diagonal))

    def _centered(self, moments: Moments) -> Moments:
        """A bias that may change is fitted with the weight, which centers all moments."""
        return moments.transformed(shift=moments.mean) if self.layer.shift else moments

    def _squares(self, windows: str, fit: LayerFit) -> LeastSquares:
        layer, paired = self.layer, getattr(self.paired, windows)
        key = windows, layer.shift, fit.damping, layer.weight.dtype
        cache = self.paired.cache
        if key not in cache:
            gram = self._centered(paired.moments()).gram
            assert gram is not None
            cache[key] = DampedGram.of(gram, fit.damping, self.method.settings.damping_mode, layer.weight.dtype)
        damped = cache[key]
        assert isinstance(damped, DampedGram)
        shift = fit.repair * paired.target_shift(layer.weight, center=layer.shift) if fit.repair else None
        return LeastSquares.of(layer.weight, damped, shift)

    def _with_bias(self, weight: Tensor, paired: PairedMoments, fit: LayerFit) -> tuple[Tensor, Tensor | None]:
        layer = self.layer
        if not layer.shift:
            return weight, layer.bias
        assert layer.bias is not None
        mean = paired.mean[: weight.shape[1]]
        moved = fit.repair * paired.mean_target_shift(layer.weight) + (layer.weight - weight).double() @ mean
        return weight, layer.bias + moved.to(layer.bias.dtype)

    def _some_rows(self) -> "LayerFitter":
        """The same for some output rows."""
        rows = slice(None, None, -(-len(self.layer.weight) // ROWS))
        layer, paired = self.layer, self.paired
        bias = None if layer.bias is None else layer.bias[rows]
        layer = replace(layer, weight=layer.weight[rows], bias=bias)
        parts = {name: getattr(paired, name).outputs(rows) for name in ("training", "held_out", "whole")}
        row_scale = None if self.row_scale is None else self.row_scale[rows]
        return replace(self, layer=layer, paired=replace(paired, **parts), row_scale=row_scale)


def _lowest(first: float, middle: float, last: float) -> tuple[float, float]:
    """Where in [0, 1] the parabola with these values at 0, 0.5 and 1 is lowest, to a hundredth, and its value."""
    bend = 2 * (first + last - 2 * middle)
    slope = last - first - bend
    lowest = -slope / (2 * bend) if bend > 0 else float(last < first)
    repair = round(min(max(lowest, 0.0), 1.0), 2)
    return repair, first + repair * (slope + repair * bend)
