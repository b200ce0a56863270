"""What flows between the layers of a block: which read one activation, which write to the residual stream, and where.

Found by running it once, in any architecture.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from optimum_si.models.norms import is_norm
from optimum_si.models.weight_view import WeightView

from .stops import Stop, WithoutHooks, hidden_of, read_by


#: Relative difference of two values that are the same but for the order of a sum.
TOLERANCE = 1e-4
#: Of the size of a value, what may be lost in a sum that it can still be recognized in.
TOLD_APART = 0.1


class Point(NamedTuple):
    """A place inside a block where a tensor passes by: input or output of a module; no module is the block's input."""

    module: nn.Module | None
    side: Literal["input", "output"]


#: Hidden states that the block is called with.
BLOCK_INPUT = Point(None, "input")


@dataclass(frozen=True, eq=False)
class Flow:
    """What flows inside a block.

    Args:
        readers: layers that read one activation each, in forward order; those that were not reached are left out.
        stream: for each layer that writes to the residual stream, the points whose sum is the stream before it writes.
            Layers that write elsewhere, or through a norm or a factor of their own, are left out.
    """

    readers: Sequence[Sequence[nn.Module]]
    stream: Mapping[nn.Module, tuple[Point, ...]]

    def among(self, views: Iterable[WeightView]) -> list[list[WeightView]]:
        """Of some weights, those that read one activation each; weights that were not reached stand alone."""
        of_module: dict[nn.Module, list[WeightView]] = {}
        for view in views:
            of_module.setdefault(view.module, []).append(view)
        groups = [[view for module in group for view in of_module.pop(module, [])] for group in self.readers]
        return [group for group in [*groups, *([view] for rest in of_module.values() for view in rest)] if group]

    def in_copy(self, block: nn.Module, other: nn.Module) -> "Flow":
        """The same for another block of the same make."""
        names = {module: name for name, module in block.named_modules()}

        def there(module: nn.Module) -> nn.Module:
            return other.get_submodule(names[module])

        stream = {
            there(writer): tuple(
                Point(None if point.module is None else there(point.module), point.side) for point in points
            )
            for writer, points in self.stream.items()
        }
        return Flow([[there(module) for module in group] for group in self.readers], stream)


@torch.no_grad()
def flow_of(block: nn.Module, stop: Stop, layers: Sequence[nn.Module]) -> Flow:
    """Run a block once and look.

    Where the input of a norm, or the block's output, is a tensor seen before plus the outputs of one layer or two (of
    two where a block computes them side by side), these layers write to the stream.

    Args:
        block: with dense weights.
        stop: a call of the block.
        layers: its linear layers.
    """
    seen, order, readers = _passing(block, stop, layers)
    return Flow(readers, _stream(block, seen, order, layers, stop.hidden))


def _stream(
    block: nn.Module, seen: dict[Point, Tensor], order: list[Point], layers: Sequence[nn.Module], hidden: Tensor
) -> dict[nn.Module, tuple[Point, ...]]:
    # Some blocks lay out their tokens anew, such as OPT, whose MLP sees those of all examples in one row.
    seen = {
        point: value.reshape(hidden.shape)
        for point, value in seen.items()
        if value.shape[-1:] == hidden.shape[-1:] and value.numel() == hidden.numel()
    }
    streams = [point for point in order if point in seen]
    written = [point for point in streams if point.module in layers and point.side == "output"]
    found: dict[nn.Module, tuple[Point, ...]] = {}
    for position, after in enumerate(streams):
        if after.side == "output" and after.module is not block or after in written:
            continue
        before = [point for point in streams[:position] if point not in written]
        for writers in _some([point for point in written if order.index(point) < order.index(after)]):
            if any(writer.module in found for writer in writers):
                continue
            rest = seen[after] - sum(seen[writer] for writer in writers)
            first = min(order.index(writer) for writer in writers)
            sources = [point for point in before if order.index(point) < first]
            source = next((point for point in sources if _same(rest, seen[point], seen[after])), None)
            if source is not None:
                for number, writer in enumerate(writers):
                    assert writer.module is not None
                    found[writer.module] = (source, *writers[:number])
    return found


def _passing(
    block: nn.Module, stop: Stop, layers: Sequence[nn.Module]
) -> tuple[dict[Point, Tensor], list[Point], list[list[nn.Module]]]:
    """What passes by each point in one call of a block, the points in order, and layers by what they read."""
    read: list[tuple[Tensor, list[nn.Module]]] = []
    seen: dict[Point, Tensor] = {BLOCK_INPUT: stop.hidden}

    def entering(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.setdefault(Point(module, "input"), read_by(args, kwargs))

    def reading(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = read_by(args, kwargs)
        known = next((modules for values, modules in read if values is found), None)
        if known is None:
            read.append((found, [module]))
        elif module not in known:
            known.append(module)

    def leaving(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(output, Tensor):
            seen.setdefault(Point(module, "output"), output)

    norms = [module for module in block.modules() if is_norm(module)]
    handles = [module.register_forward_pre_hook(entering, with_kwargs=True) for module in norms]
    handles += [module.register_forward_pre_hook(reading, with_kwargs=True) for module in layers]
    handles += [module.register_forward_hook(leaving) for module in [*norms, *layers]]
    try:
        seen[Point(block, "output")] = hidden_of(stop.call(WithoutHooks(block)))
    finally:
        for handle in handles:
            handle.remove()
    return seen, list(seen), [modules for _, modules in read]


def _some(points: list[Point]) -> list[tuple[Point, ...]]:
    """One of them, the latest first, or two."""
    return [*((point,) for point in reversed(points)), *combinations(points, 2)]


def _same(first: Tensor, second: Tensor, scale: Tensor) -> bool:
    """Whether a difference of ``scale`` and other values is ``second``, as far as its own size lets that be told."""
    apart, least, size = (_norm(values) for values in (first - second, second, scale))
    return apart <= TOLERANCE * size < TOLD_APART * least


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64))
