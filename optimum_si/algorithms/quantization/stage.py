"""All layers of a block rounded to a grid, each on the inputs that it gets from the layers before it."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockState, Layer, Weights, naming, view_factor
from optimum_si.algorithms.induction.absorption import absorbed_scales
from optimum_si.algorithms.pruning.method import Settings
from optimum_si.algorithms.reconstruction.observe import moments_after_pruning
from optimum_si.algorithms.stage import Need
from optimum_si.config.si_config import SIConfig
from optimum_si.linalg.damping import safe_damping
from optimum_si.linalg.moments import Moments

from .gptq import quantized
from .grids import GRIDS, Grid


@dataclass(frozen=True)
class RoundingStage:
    """Rounds the layers of a block, so that they lie on the grid once scales are absorbed.

    Biases that may change take up the mean error. Where the block has batches, inputs are those that its rounded
    layers give; else the moments that its layers come with, from a pass through the dense block.

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
        layers = {layer.view.name: layer for layer in state.layers}
        weights: Weights = dict(state.weights)
        scaling = state.scaling if self.absorbs else None
        scales = {} if scaling is None else absorbed_scales(state.scale_groups, scaling.scales)
        for layer_input in state.layer_inputs:
            seen = moments_after_pruning(state, layer_input, weights, state.norm_params)
            for view in layer_input.views:
                rows, columns = (view_factor(state.scale_groups, scales, view, axis) for axis in ("rows", "columns"))
                layer = layers[view.name]
                with naming(layer.view):
                    weights[view.name] = self._rounded(
                        layer, seen or layer.moments, *weights[view.name], rows, columns
                    )
        return replace(state, weights=weights)

    def _rounded(
        self,
        layer: Layer,
        moments: Moments,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        columns: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of one layer; ``rows`` and ``columns`` are the powers of two that absorption brings."""
        centered = moments.transformed(shift=moments.mean) if layer.shift else moments
        gram = centered.transformed(None if columns is None else 1 / columns).gram
        assert gram is not None, "quantization needs the full Gram matrix"
        factor = torch.ones_like(weight)
        if rows is not None:
            factor = factor * rows[:, None].to(weight)
        if columns is not None:
            factor = factor * columns.to(weight)
        damping = safe_damping(self.settings.damping, moments.count, len(gram))
        result = quantized(weight * factor, gram, self.grid, damping, self.settings.damping_mode) / factor
        if not layer.shift or bias is None:
            return result, bias
        return result, bias + ((weight - result).double() @ moments.mean).to(bias.dtype)
