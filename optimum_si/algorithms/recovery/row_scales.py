"""A factor for each output row of a layer: in the layer's output while it is trained, in its weights afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from optimum_si.models.weight_view import WeightView


class RowScales:
    """Factors for the output rows of some layers.

    Args:
        views: the layers, in the dtype in which they are stored.
        dtype: of the factors.

    Attributes:
        values: the factors by name, [d_out] each, at first 1.
    """

    def __init__(self, views: Sequence[WeightView], dtype: torch.dtype) -> None:
        self.views = {f"{view.name}.row_scale": view for view in views}
        self.dtypes = {name: view.tensor().dtype for name, view in self.views.items()}
        self.values = {
            name: nn.Parameter(torch.ones(view.shape[0], dtype=dtype, device=view.tensor().device))
            for name, view in self.views.items()
        }

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Layers give their outputs times the factors for a while."""
        handles = [
            view.module.register_forward_hook(
                lambda module, args, output, view=view, factor=self.values[name]: (
                    output * view.embed_bias(factor.new_ones(output.shape[-1]), factor)
                )
            )
            for name, view in self.views.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def absorb(self) -> None:
        """Multiply the rows of weights, and biases, by the factors, rounded to what is stored; these become 1."""
        for name, view in self.views.items():
            factor, dtype = self.values[name], self.dtypes[name]
            view.write((view.read() * factor[:, None]).to(dtype))
            if (bias := view.read_bias()) is not None:
                view.write_bias((bias * factor).to(dtype))
            factor.fill_(1)

    @contextmanager
    def absorbed(self) -> Iterator[None]:
        """Weights and factors as after :meth:`absorb`, for a while."""
        before: list[tuple[Tensor, Tensor | None, Tensor]] = []
        for name, view in self.views.items():
            bias = view.read_bias()
            factor = self.values[name].detach().clone()
            before.append((view.read().clone(), None if bias is None else bias.clone(), factor))
        self.absorb()
        try:
            yield
        finally:
            with torch.no_grad():
                for (name, view), (weight, bias, factor) in zip(self.views.items(), before, strict=True):
                    view.write(weight)
                    if bias is not None:
                        view.write_bias(bias)
                    self.values[name].copy_(factor)
