"""Changing the basis of a space in every weight that writes or reads it."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from optimum_si.models.invariances import Residual, Side, Space
from optimum_si.models.weight_view import WeightView


def rotate(space: Space, rotation: Tensor) -> None:
    """x' = Q^T x, absorbed in place. Norms have to have a constant weight; their bias is rotated.

    Args:
        space: where.
        rotation: Q, orthogonal, fp64 [parts, size, size].
    """

    def columns(weight: Tensor, repeats: int) -> Tensor:
        split = weight.unflatten(1, (space.parts, repeats, space.size))
        return torch.einsum("oprn,pnm->oprm", split, rotation.to(weight.device, weight.dtype)).flatten(1)

    for parameter in _tables(space):
        parameter.copy_(columns(parameter.double(), 1))
    for side in _own(space, space.readers):
        side.view.write(columns(side.view.read().double(), side.repeats))
    for side in _own(space, space.writers):
        side.view.write(columns(side.view.read().double().T, side.repeats).T)
        bias = side.view.read_bias()
        if bias is not None:
            side.view.write_bias(columns(bias.double()[None], side.repeats)[0])
    for norm in space.norms:
        _, bias = _affine(norm)
        if bias is not None:
            bias.copy_(columns(bias.double()[None], 1)[0])


def permute(space: Space, order: Tensor) -> None:
    """x' = x[order] within each part, absorbed in place; no value is rounded.

    Args:
        space: where.
        order: int64 [parts, size].
    """

    def taken(repeats: int, device: torch.device) -> Tensor:
        starts = torch.arange(space.parts * repeats).view(space.parts, repeats, 1) * space.size
        return (starts + order.cpu()[:, None, :]).reshape(-1).to(device)

    for parameter in _tables(space):
        parameter.copy_(parameter[:, taken(1, parameter.device)])
    for side in _own(space, space.readers):
        weight = side.view.read()
        side.view.write(weight[:, taken(side.repeats, weight.device)])
    for side in _own(space, space.writers):
        weight, bias = side.view.read(), side.view.read_bias()
        side.view.write(weight[taken(side.repeats, weight.device)])
        if bias is not None:
            side.view.write_bias(bias[taken(side.repeats, bias.device)])
    for norm in space.norms:
        for values in _affine(norm):
            if values is not None:
                values.copy_(values[taken(1, values.device)])


def is_foldable(residual: Residual) -> bool:
    """Whether the weight of every norm can move into its readers; a bias needs a weight to be divided by."""
    for norm, _ in residual.reads:
        weight, bias = _affine(norm)
        if weight is not None and bias is not None and bool(((weight == 0) & (bias != 0)).any()):
            return False
    return True


def fold(residual: Residual) -> None:
    """Multiply the columns of readers by the weight of the norm in front of them, which becomes 1.

    A norm whose weight is one number in all channels commutes with rotations and stays as it is.
    """
    for norm, views in residual.reads:
        weight, bias = _affine(norm)
        if weight is None or is_constant(weight):
            continue
        for view in views:
            view.write(view.read().double() * weight.double())
        if bias is not None:
            bias.copy_(torch.where(weight == 0, 0, bias.double() / weight.double()))
        weight.fill_(1)


def needs_untying(residual: Residual) -> list[WeightView]:
    """Readers that are an embedding too, behind a norm whose weight only the reader can take up."""
    tables = {id(table) for table in residual.space.tables}
    return [
        view
        for norm, views in residual.reads
        for view in views
        if id(view.tensor()) in tables and (weight := _affine(norm)[0]) is not None and not is_constant(weight)
    ]


def is_constant(weight: Tensor) -> bool:
    """Whether all entries are equal."""
    return bool((weight == weight[0]).all())


def _affine(norm: nn.Module | None) -> tuple[Tensor | None, Tensor | None]:
    parameters = [getattr(norm, name, None) for name in ("weight", "bias")]
    weight, bias = (None if parameter is None else parameter.detach() for parameter in parameters)
    return weight, bias


def _tables(space: Space) -> Iterator[Tensor]:
    for parameter in {id(table): table for table in space.tables}.values():
        yield parameter.detach()


def _own(space: Space, sides: tuple[Side, ...]) -> Iterator[Side]:
    """Sides whose parameter is not a table too (a tied head): those are changed as tables."""
    tables = {id(table) for table in space.tables}
    yield from (side for side in sides if id(side.view.tensor()) not in tables)
