"""Changing the basis of a basis in every weight that writes or reads it."""

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from optimum_si.models.invariances import Basis, Reader, ResidualStream, Writer
from optimum_si.models.norms import affine
from optimum_si.models.weight_view import WeightView


_Map = TypeVar("_Map", Reader, Writer)


def rotate(basis: Basis, rotation: Tensor) -> None:
    """x' = Q^T x, absorbed in place. Norms have to have a constant weight; their bias is rotated.

    Args:
        basis: where.
        rotation: Q, orthogonal, fp64 [parts, size, size].
    """

    def columns(weight: Tensor, repeats: int) -> Tensor:
        split = weight.unflatten(1, (basis.parts, repeats, basis.size))
        return torch.einsum("oprn,pnm->oprm", split, rotation.to(weight.device, weight.dtype)).flatten(1)

    for parameter in _tables(basis):
        parameter.copy_(columns(parameter.double(), 1))
    for reader in _untied(basis, basis.readers):
        reader.view.write(columns(reader.view.read().double(), reader.repeats))
    for writer in _untied(basis, basis.writers):
        writer.view.write(columns(writer.view.read().double().T, writer.repeats).T)
        bias = writer.view.read_bias()
        if bias is not None:
            writer.view.write_bias(columns(bias.double()[None], writer.repeats)[0])
    for norm in basis.norms:
        _, bias = affine(norm)
        if bias is not None:
            bias.copy_(columns(bias.double()[None], 1)[0])


def permute(basis: Basis, order: Tensor) -> None:
    """x' = x[order] within each part, absorbed in place; no value is rounded.

    Args:
        basis: where.
        order: int64 [parts, size].
    """

    def taken(repeats: int, device: torch.device) -> Tensor:
        starts = torch.arange(basis.parts * repeats).view(basis.parts, repeats, 1) * basis.size
        return (starts + order.cpu()[:, None, :]).reshape(-1).to(device)

    for parameter in _tables(basis):
        parameter.copy_(parameter[:, taken(1, parameter.device)])
    for reader in _untied(basis, basis.readers):
        weight = reader.view.read()
        reader.view.write(weight[:, taken(reader.repeats, weight.device)])
    for writer in _untied(basis, basis.writers):
        weight, bias = writer.view.read(), writer.view.read_bias()
        writer.view.write(weight[taken(writer.repeats, weight.device)])
        if bias is not None:
            writer.view.write_bias(bias[taken(writer.repeats, bias.device)])
    for norm in basis.norms:
        for values in affine(norm):
            if values is not None:
                values.copy_(values[taken(1, values.device)])


def is_foldable(residual: ResidualStream) -> bool:
    """Whether the weight of every norm can move into its readers; a bias needs a weight to be divided by."""
    for norm, _ in residual.reads:
        weight, bias = affine(norm)
        if weight is not None and bias is not None and bool(((weight == 0) & (bias != 0)).any()):
            return False
    return True


def fold(residual: ResidualStream) -> None:
    """Multiply the columns of readers by the weight of the norm in front of them, which becomes 1.

    A norm whose weight is one number in all channels commutes with rotations and stays as it is.
    """
    for norm, views in residual.reads:
        weight, bias = affine(norm)
        if weight is None or is_constant(weight):
            continue
        for view in views:
            view.write(view.read().double() * weight.double())
        if bias is not None:
            bias.copy_(torch.where(weight == 0, 0, bias.double() / weight.double()))
        weight.fill_(1)


def needs_untying(residual: ResidualStream) -> list[WeightView]:
    """Readers that are an embedding too, behind a norm whose weight only the reader can take up."""
    tables = {id(table) for table in residual.basis.tables}
    return [
        view
        for norm, views in residual.reads
        for view in views
        if id(view.tensor()) in tables and (weight := affine(norm)[0]) is not None and not is_constant(weight)
    ]


def is_constant(weight: Tensor) -> bool:
    """Whether all entries are equal."""
    return bool((weight == weight[0]).all())


def _tables(basis: Basis) -> Iterator[Tensor]:
    for parameter in {id(table): table for table in basis.tables}.values():
        yield parameter.detach()


def _untied(basis: Basis, maps: tuple[_Map, ...]) -> Iterator[_Map]:
    """Maps whose parameter is not a table too (a tied head): those are changed as tables."""
    tables = {id(table) for table in basis.tables}
    yield from (linear for linear in maps if id(linear.view.tensor()) not in tables)
