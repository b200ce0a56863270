"""Weight views: a 2-D [d_out, d_in] matrix inside a parameter, whatever the parameter's own layout."""

from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class WeightView:
    """One linear map of a block: ``parameter[index]``, oriented as [d_out, d_in].

    Args:
        name: full module name, such as "model.layers.0.mlp.up_proj", and the part of a fused module that this is.
        module: owner of the parameter; its input is the input of this map.
        parameter: attribute that holds the weight.
        bias: attribute that holds the bias; it may be None there.
        transposed: True where the parameter is stored [d_in, d_out] (Conv1D).
        unfold: sizes into which the output rows are split before ``index`` picks some of them, for fused projections
            such as [heads, 3, head_size].
        index: picks this view out of the (unfolded) output rows of a fused parameter.
        part: what of a fused module this is, such as "q", the end of its name; "" for all of it.
    """

    name: str
    module: nn.Module
    parameter: str = "weight"
    bias: str = "bias"
    transposed: bool = False
    unfold: tuple[int, ...] | None = None
    index: tuple[Any, ...] = field(default=())
    part: str = ""

    @property
    def owner(self) -> str:
        """Full name of the module."""
        return self.name.removesuffix(f".{self.part}") if self.part else self.name

    def tensor(self) -> nn.Parameter:
        """The parameter that this view lives in."""
        return getattr(self.module, self.parameter)

    @property
    def is_whole(self) -> bool:
        """True where the view is its parameter, as in nn.Linear."""
        return not (self.transposed or self.index)

    def _select(self, whole: Tensor) -> Tensor:
        """The strided part of ``whole`` that this view covers; writing to it writes to ``whole``."""
        rows = whole.T if self.transposed else whole
        return (rows if self.unfold is None else rows.unflatten(0, self.unfold))[self.index]

    def _select_bias(self, whole: Tensor) -> Tensor:
        return (whole if self.unfold is None else whole.unflatten(0, self.unfold))[self.index]

    def read(self) -> Tensor:
        """[d_out, d_in]; shares storage with the parameter where its layout allows."""
        return self.read_in(self.tensor().detach())

    def read_in(self, whole: Tensor) -> Tensor:
        """[d_out, d_in] of another value of the parameter."""
        selected = self._select(whole)
        return selected.reshape(-1, selected.shape[-1])

    def write(self, weight: Tensor) -> None:
        """Store [d_out, d_in] of any float dtype, cast once."""
        selected = self._select(self.tensor().detach())
        selected.copy_(weight.reshape(selected.shape))

    def embed(self, whole: Tensor, weight: Tensor) -> Tensor:
        """``whole`` with this view replaced by ``weight`` [d_out, d_in], differentiable in both."""
        if self.is_whole:
            return weight
        whole = whole.clone()
        selected = self._select(whole)
        selected.copy_(weight.reshape(selected.shape))
        return whole

    def bias_tensor(self) -> nn.Parameter | None:
        """The parameter that holds this view's bias, or None."""
        return getattr(self.module, self.bias, None)

    def of_outputs(self, values: Tensor) -> Tensor:
        """This view's part, [d_out], of a value for each output of its module."""
        return self._select_bias(values).reshape(-1)

    def read_bias(self) -> Tensor | None:
        """[d_out], or None where the layer has no bias."""
        whole = self.bias_tensor()
        return None if whole is None else self._select_bias(whole.detach()).reshape(-1)

    def write_bias(self, bias: Tensor) -> None:
        """Store [d_out] of any float dtype, cast once."""
        whole = self.bias_tensor()
        assert whole is not None, f"{self.name} has no bias"
        selected = self._select_bias(whole.detach())
        selected.copy_(bias.reshape(selected.shape))

    def embed_bias(self, whole: Tensor, bias: Tensor) -> Tensor:
        """``whole`` with this view's bias replaced by ``bias`` [d_out], differentiable in both."""
        if not self.index:
            return bias
        whole = whole.clone()
        selected = self._select_bias(whole)
        selected.copy_(bias.reshape(selected.shape))
        return whole

    def override(self, values: dict[str, Tensor], prefix: str, weight: Tensor, bias: Tensor | None) -> None:
        """Put this view's weight and bias into parameters for ``functional_call``, beside what other views put there.

        Args:
            values: parameters by name; changed.
            prefix: of the owner's parameters, such as "mlp.up_proj.".
            weight: [d_out, d_in].
            bias: [d_out]; None leaves the bias as it is.
        """
        name = prefix + self.parameter
        values[name] = self.embed(values.get(name, self.tensor().detach()), weight)
        if bias is not None:
            whole = self.bias_tensor()
            assert whole is not None, f"{self.name} has no bias"
            name = prefix + self.bias
            values[name] = self.embed_bias(values.get(name, whole.detach()), bias)

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        *rows, columns = self._select(self.tensor().detach()).shape
        return prod(rows), columns


def linear_views(block: nn.Module, prefix: str) -> list[WeightView]:
    """A view of every nn.Linear and Conv1D in ``block``, in module order.

    Args:
        block: a transformer block.
        prefix: the block's own module name, put before the names inside it.
    """
    return [
        WeightView(f"{prefix}.{name}" if prefix else name, module, transposed=is_conv1d(module))
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) or is_conv1d(module)
    ]


def is_conv1d(module: nn.Module) -> bool:
    """True for GPT-2's Conv1D, a linear layer stored [d_in, d_out]."""
    return type(module).__name__ == "Conv1D" and getattr(module, "weight", torch.empty(0)).ndim == 2
