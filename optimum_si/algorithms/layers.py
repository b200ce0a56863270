"""One weight to prune, the scales and shifts of its block, and what is decided about it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.targets import Target
from optimum_si.errors import NumericalError
from optimum_si.linalg.moments import Moments
from optimum_si.models.scale_groups import ScaleGroup
from optimum_si.models.weight_view import WeightView


_TRY = "Load the model in dtype='float32', give more calibration data, or exclude that layer."

#: Weight [d_out, d_in] and bias [d_out] (or None) of each layer, by view name.
Weights = dict[str, tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, eq=False)
class Layer:
    """One weight to prune.

    Args:
        view: where it lives.
        weight: dense, [d_out, d_in], in the dtype of the computation.
        bias: dense, [d_out], or None.
        moments: of its inputs, as the pruned model gives them.
        target: how much goes.
        shift: True where the shift may change the bias.
    """

    view: WeightView
    weight: Tensor
    bias: Tensor | None
    moments: Moments
    target: Target
    shift: bool

    @property
    def mean(self) -> Tensor:
        """Mean of the inputs, [d_in], in the dtype of the weight."""
        return self.moments.mean.to(self.weight.dtype)

    def scored_moments(self, shifted: bool) -> Moments:
        """Moments to score with: centered where the shift takes the mean away, H - mu mu^T."""
        return self.moments.transformed(shift=self.moments.mean) if shifted and self.shift else self.moments


@dataclass(frozen=True, eq=False)
class Scaling:
    """Scales and shifts of one block; without any of them the block is pruned as it is.

    Args:
        scales: s by the name of its scale group; groups that are left out keep s = 1.
        shifted: whether biases take up the shift.
        bias_change: learned change of each shifted bias beyond mean compensation, by view name, [d_out].
        rows, columns: learned factors of what is left of each weight, by view name, [d_out] and [d_in].
    """

    scales: Mapping[str, Tensor] = field(default_factory=dict)
    shifted: bool = False
    bias_change: Mapping[str, Tensor] = field(default_factory=dict)
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def name(self) -> Literal["induced", "shift", "plain"]:
        """What it is called in reports."""
        return "induced" if self.scales else "shift" if self.shifted else "plain"

    def part_of_the_way(self, fraction: float) -> "Scaling":
        """The scaling at a fraction of its distance from s = 1 (in log s) and from mean compensation."""
        scales, rows, columns = (
            {name: factor**fraction for name, factor in factors.items()}
            for factors in (self.scales, self.rows, self.columns)
        )
        changes = {name: fraction * change for name, change in self.bias_change.items()}
        return Scaling(scales, self.shifted, changes, rows, columns)


#: No scale, and biases as they are.
PLAIN = Scaling()


@dataclass(frozen=True)
class LayerFit:
    """How one layer was fitted.

    Args:
        repair: fraction of the dense model's output, on its own inputs, in the target.
        damping: of the fit, as a fraction of the mean of H's diagonal.
    """

    repair: float
    damping: float


def finished(layer: Layer, pruned: Tensor, scaling: Scaling) -> tuple[Tensor, Tensor | None]:
    """A pruned weight [d_out, d_in] with the learned factors of its rows and columns, and its bias [d_out].

    The bias of a shifted layer takes up what the weights that went gave on average, b + (W - V) mu with V the weight
    that is returned, and its learned change.
    """
    name, weight = layer.view.name, pruned
    if name in scaling.columns:
        weight = weight * scaling.columns[name]
    if name in scaling.rows:
        weight = weight * scaling.rows[name][:, None]
    if not (scaling.shifted and layer.shift):
        return weight, layer.bias
    assert layer.bias is not None
    bias, change = layer.bias + (layer.weight - weight) @ layer.mean, scaling.bias_change.get(name)
    return weight, bias if change is None else bias + change


def view_factor(
    groups: Sequence[ScaleGroup], scales: Mapping[str, Tensor], view: WeightView, axis: Literal["rows", "columns"]
) -> Tensor | None:
    """What scales multiply the rows [d_out] or columns [d_in] of one view by; None where nothing scales them.

    Args:
        groups: of the view's block.
        scales: s by the name of its group; groups that are left out are not scaled.
        view: one weight.
        axis: which side of it.
    """
    factor = None
    for group in groups:
        for scaled in group.axes:
            if scaled.view is view and scaled.axis == axis and group.name in scales:
                own = scaled.factor(scales[group.name])
                factor = own if factor is None else factor * own
    return factor


@contextmanager
def naming(view: WeightView) -> Iterator[None]:
    """Numerical errors of a method, which knows no names, with the name of the layer put before them; once."""
    try:
        yield
    except NumericalError as error:
        if str(error).startswith(f"layer {view.name!r}: "):
            raise
        raise NumericalError(f"layer {view.name!r}: {error}") from error
    except torch.linalg.LinAlgError as error:
        raise NumericalError(f"layer {view.name!r}: {error} {_TRY}") from error
