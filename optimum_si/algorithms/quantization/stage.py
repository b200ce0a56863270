"""All layers of a block rounded to a grid, each on the inputs that it gets from the layers before it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.induction.absorption import absorbed_scales
from optimum_si.algorithms.layers import Layer, naming, view_factor
from optimum_si.algorithms.pruning.method import Settings
from optimum_si.algorithms.sequence.inputs import single_input
from optimum_si.algorithms.stage import Need
from optimum_si.config.si_config import SIConfig
from optimum_si.linalg.damping import safe_damping
from optimum_si.linalg.finite import all_finite
from optimum_si.linalg.moments import Moments
from optimum_si.models.forward.layer_walk import LayerWalk
from optimum_si.models.forward.modes import replaced

from .gptq import quantized
from .grids import GRIDS, Grid


@dataclass(frozen=True)
class RoundingStage:
    """Rounds the layers of a block, so that they lie on the grid once scales are absorbed.

    Biases that may change take up the mean error. Each layer is rounded on what those before it give, rounded too.

    Args:
        grid: what to round to.
        settings: damping of the Hessian.
        absorbs: whether chosen scales go into the weights afterwards.
    """

    grid: Grid
    settings: Settings
    absorbs: bool
    needs: ClassVar[frozenset[Need]] = frozenset({Need.GRAM})

    @classmethod
    def of(cls, config: SIConfig) -> "RoundingStage":
        """The stage of a recipe with ``quantization``."""
        absorbs = config.induction is not None and config.induction.absorb
        return cls(GRIDS[config.quantization], Settings.of(config), absorbs)

    @torch.no_grad()
    def __call__(self, state: BlockState) -> BlockState:
        calls = state.calls
        assert calls is not None, "layers are rounded on their inputs"
        layers = {layer.view.name: layer for layer in state.layers}
        fallbacks = dict(state.fallbacks)
        scaling = state.scaling if self.absorbs else None
        scales = {} if scaling is None else absorbed_scales(state.scale_groups, scaling.scales)
        walk = LayerWalk(state.block, [layer.view for layer in state.layers], calls.pruned, further=calls.further)
        with replaced(state.block, state.norm_params):
            for reached in walk:
                moments, _ = single_input(reached, calls, gram=True)
                for view in reached.views:
                    layer = layers[view.name]
                    seen = moments if moments.count else layer.moments
                    walk.weights[view.name] = self._rounded(state, layer, seen, scales, fallbacks)
        # Experts that no token comes to any more.
        rest = {
            name: self._rounded(state, layer, layer.moments, scales, fallbacks)
            for name, layer in layers.items()
            if name not in walk.weights
        }
        return replace(state, weights={**walk.weights, **rest}, outputs=walk.outputs, fallbacks=fallbacks)

    def _rounded(
        self,
        state: BlockState,
        layer: Layer,
        moments: Moments,
        scales: Mapping[str, Tensor],
        fallbacks: dict[str, str],
    ) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of one layer, on the grid once the powers of two in ``scales`` are absorbed.

        A layer that had to be rounded without repair is noted in ``fallbacks``.
        """
        rows = view_factor(state.scale_groups, scales, layer.view, "rows")
        columns = view_factor(state.scale_groups, scales, layer.view, "columns")
        weight, bias = state.weights[layer.view.name]
        with naming(layer.view):
            rounded = state.as_stored(layer.view, *self._on_grid(layer, moments, weight, bias, rows, columns))
        if all_finite(rounded):
            return rounded
        # Repairing what rounding breaks may grow weights beyond the range of their dtype; rounding alone does not.
        fallbacks.setdefault(layer.view.name, "rounding to the nearest")
        factor = _factor(weight, rows, columns)
        return state.as_stored(layer.view, self.grid.nearest(weight * factor) / factor, bias)

    def _on_grid(
        self,
        layer: Layer,
        moments: Moments,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        columns: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        centered = moments.transformed(shift=moments.mean) if layer.shift else moments
        centered = centered.transformed(None if columns is None else 1 / columns)
        # Of layers that are not called any more, a method may know no more than the diagonal.
        gram = torch.diag(centered.diagonal) if centered.gram is None else centered.gram
        factor = _factor(weight, rows, columns)
        damping = safe_damping(self.settings.damping, moments.count, len(gram))
        result = quantized(weight * factor, gram, self.grid, damping, self.settings.damping_mode) / factor
        if not layer.shift or bias is None:
            return result, bias
        return result, bias + ((weight - result).double() @ moments.mean).to(bias.dtype)


def _factor(weight: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """What absorption will multiply each weight by, [d_out, d_in]."""
    factor = torch.ones_like(weight)
    if rows is not None:
        factor = factor * rows[:, None].to(weight)
    return factor if columns is None else factor * columns.to(weight)
