"""All layers of a block rounded to a grid, each on the inputs that it gets from the layers before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optimum_si.algorithms.block_state import BlockProblem, Candidate, Layer, Weights, naming
from optimum_si.algorithms.induction.absorption import absorbed_scales, view_factor
from optimum_si.algorithms.pruning.method import Settings
from optimum_si.algorithms.reconstruction.observe import moments_after_pruning
from optimum_si.linalg.moments import Moments
from optimum_si.models.forward.layer_inputs import Site

from .gptq import quantized
from .grids import Grid


@dataclass(frozen=True)
class Rounder:
    """Rounds the layers of a block.

    Args:
        grid: what to round to.
        settings: damping of the Hessian.
        absorbs: whether chosen scales go into the weights afterwards.
    """

    grid: Grid
    settings: Settings
    absorbs: bool

    @torch.no_grad()
    def __call__(
        self,
        problem: BlockProblem,
        sites: Sequence[Site],
        weights: Weights,
        others: Mapping[str, Tensor],
        candidate: Candidate | None,
    ) -> Weights:
        """Weights that lie on the grid once scales are absorbed; biases that may change take up the mean error.

        Args:
            problem: the block. Where it has batches, inputs are those that its rounded layers give; else the moments
                that its layers come with, from a pass through the dense block.
            sites: its input activations, in forward order.
            weights: pruned and fitted.
            others: refined norms, by name inside the block.
            candidate: scales that are absorbed afterwards; None absorbs nothing.

        Raises:
            NumericalError: names the layer.
        """
        layers = {layer.view.name: layer for layer in problem.layers}
        weights = dict(weights)
        scales = absorbed_scales(problem.channels, candidate.scales) if self.absorbs and candidate else {}
        for site in sites:
            seen = moments_after_pruning(problem, site, weights, others) or site.moments
            for view in site.views:
                rows, columns = (view_factor(problem.channels, scales, view, axis) for axis in ("rows", "columns"))
                layer = layers[view.name]
                with naming(layer.view):
                    weights[view.name] = self._rounded(
                        layer, seen or layer.moments, *weights[view.name], rows, columns
                    )
        return weights

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
        settings = self.settings
        result = quantized(weight * factor, gram, self.grid, settings.damping, settings.damping_mode) / factor
        if not layer.shift or bias is None:
            return result, bias
        return result, bias + ((weight - result).double() @ moments.mean).to(bias.dtype)
