"""The choice for a block: what was learned, part of it, the shift alone, or the plain method, by held-out loss."""

import math
from dataclasses import dataclass, replace

import torch

from optimum_si.algorithms.block_state import BlockState
from optimum_si.algorithms.layers import PLAIN, Scaling, Weights, finished
from optimum_si.config.groups import InductionConfig
from optimum_si.linalg.finite import all_finite

from .learn import learn_kept, learn_scales


#: How far to go from s = 1 to what was learned: a lower loss of the block is not always one of the model.
FRACTIONS = (0.5, 1.0)

#: A choice has to lower the plain method's held-out loss by this fraction: less is noise, and a wrong one costs more.
MARGIN = 0.01


@dataclass(frozen=True, eq=False)
class _Trial:
    """A scaling, the weights that it gives, and their held-out loss."""

    scaling: Scaling
    weights: Weights
    loss: float


def choose(state: BlockState, settings: InductionConfig, generator: torch.Generator, learns_kept: bool) -> BlockState:
    """Learn, and keep what loses least on held-out windows: induction never makes a block worse there.

    Args:
        state: the block.
        settings: how to learn.
        generator: for the order of batches.
        learns_kept: whether to learn factors and biases, too, for weights that the method changed.

    Returns:
        The state with a scaling, its weights, those of the plain method, and the losses of both.
    """

    def measured(scaling: Scaling, weights: Weights) -> _Trial:
        # What is not finite is worse than anything: a comparison with NaN would be neither true nor false.
        loss = state.validation_loss(weights) if _is_finite(scaling) else math.inf
        return _Trial(scaling, weights, math.inf if math.isnan(loss) else loss)

    shiftable = settings.shift and any(layer.shift for layer in state.layers)
    plain = measured(PLAIN, state.prune(PLAIN))
    learned = learn_scales(state, settings, generator)
    scalings = [learned.part_of_the_way(fraction) for fraction in FRACTIONS]
    if shiftable:
        scalings.append(Scaling(shifted=True))
    best = min((measured(scaling, state.prune(scaling)) for scaling in scalings), key=lambda trial: trial.loss)
    if learns_kept and (shiftable or settings.rescale) and not state.method.keeps_weights:
        kept = learn_kept(state, settings, best.weights, generator)
        weights = {layer.view.name: finished(layer, best.weights[layer.view.name][0], kept) for layer in state.layers}
        trial = measured(replace(kept, scales=best.scaling.scales), weights)
        best = min(best, trial, key=lambda trial: trial.loss)
    if not best.loss < (1 - MARGIN) * plain.loss:
        best = plain
    return replace(
        state,
        scaling=best.scaling,
        weights=best.weights,
        plain_weights=plain.weights,
        losses=(plain.loss, best.loss),
    )


def _is_finite(scaling: Scaling) -> bool:
    groups = (scaling.scales, scaling.bias_change, scaling.rows, scaling.columns)
    return all_finite(values for group in groups for values in group.values())
