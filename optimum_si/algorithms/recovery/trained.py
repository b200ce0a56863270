"""Which parameters a recovery trains, and how their zeros and their stored dtype are kept."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from optimum_si.models.norms import is_norm, norm_parameters
from optimum_si.models.structure import Structure
from optimum_si.models.weight_view import WeightView

from .row_scales import RowScales


@dataclass(frozen=True, eq=False)
class Trained:
    """What is trained together.

    Args:
        values: parameters by name; of those with two or more dimensions, zeros stay zeros.
        dtypes: in which they are stored.
        scales: factors among them that end in the weights of their layers.
    """

    values: Mapping[str, nn.Parameter]
    dtypes: Mapping[str, torch.dtype]
    scales: RowScales

    def mask_gradients(self) -> None:
        """Leave zeros of weights without a gradient: what never has one, no optimizer moves."""
        for value in self.values.values():
            if value.ndim > 1 and value.grad is not None:
                value.grad.mul_(value.detach() != 0)

    @torch.no_grad()
    def keep_nonzero(self) -> None:
        """Move weights that a step brought to exactly zero off it again: they would count among those pruned."""
        for value in self.values.values():
            if value.ndim > 1 and value.grad is not None:
                value.masked_fill_((value == 0) & (value.grad != 0), torch.finfo(value.dtype).tiny)

    def forget_gradients(self) -> None:
        """Free the gradients."""
        for value in self.values.values():
            value.grad = None

    def keep(self) -> dict[str, Tensor]:
        """Copies of the values as they are stored; none that is not zero becomes zero by it."""
        return {name: _as_stored(value.detach(), self.dtypes[name]) for name, value in self.values.items()}

    @torch.no_grad()
    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Bring back what :meth:`keep` gave, or wider values."""
        for name, value in self.values.items():
            value.copy_(kept[name])

    @contextmanager
    def as_stored(self) -> Iterator[dict[str, Tensor]]:
        """The values rounded to what is stored, for a while, and as copies; gradients are freed."""
        self.forget_gradients()
        stored = self.keep()
        rounds = any(value.dtype != self.dtypes[name] for name, value in self.values.items())
        masters = {name: value.detach().clone() for name, value in self.values.items()} if rounds else {}
        if rounds:
            self.restore(stored)
        try:
            with self.scales.absorbed():
                yield stored
        finally:
            if rounds:
                self.restore(masters)


def _as_stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    stored = value.to(dtype, copy=True).contiguous()
    if value.ndim > 1 and dtype != value.dtype:
        stored.masked_fill_((stored == 0) & (value != 0), torch.finfo(dtype).tiny)
    return stored


def zeros_kept(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    """Whether every zero of a weight is still one."""
    return all(not bool(((value == 0) & (after[name] != 0)).any()) for name, value in before.items() if value.ndim > 1)


def pruned_views(structure: Structure) -> list[list[WeightView]]:
    """For each block, the weights that hold zeros."""
    return [[view for view in block.views.values() if bool((view.read() == 0).any())] for block in structure.blocks]


def parameters_of_blocks(
    structure: Structure, pruned: Sequence[Sequence[WeightView]], weights: bool
) -> list[dict[str, nn.Parameter]]:
    """For each block, its norms and biases, and on request the weights that hold zeros, by name in the model."""
    result = []
    for block, views in zip(structure.blocks, pruned, strict=True):
        chosen = {id(view.tensor()) for view in views} if weights else set()
        chosen |= {id(value) for value in norm_parameters(block.module).values()}
        result.append(
            {
                f"{block.name}.{name}": value
                for name, value in block.module.named_parameters()
                if value.is_floating_point() and (id(value) in chosen or (name.endswith("bias") and value.ndim == 1))
            }
        )
    return result


def norms_outside(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of norms that are in no list of blocks, such as the last one before the output head."""
    lists = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    return {
        f"{name}.{local}" if name else local: value
        for name, module in model.named_modules()
        if is_norm(module) and not name.startswith(lists)
        for local, value in module.named_parameters(recurse=False)
        if value.is_floating_point()
    }
