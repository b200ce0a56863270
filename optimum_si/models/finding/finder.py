"""Pairs of the undeclared blocks of a run: found once for blocks of one make, and proven in each."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from optimum_si.models.forward.stops import Stop
from optimum_si.models.scale_groups import ScaleGroup, is_shared
from optimum_si.models.weight_view import WeightView

from .find import found_pairs, groups_of
from .proof import Proof
from .spec import Spec


#: Tokens that show enough.
_TOKENS = 32


class Finder:
    """Finds pairs where no family declares any.

    Args:
        shared: ids of parameters that must keep their values for other uses.
    """

    def __init__(self, shared: frozenset[int]) -> None:
        self._shared = shared
        self._known: dict[Any, list[Spec]] = {}

    def groups(self, block: nn.Module, views: Mapping[str, WeightView], stops: Sequence[Stop]) -> list[ScaleGroup]:
        """What holds in one block.

        Args:
            block: with dense weights, in the dtype of its calls.
            views: all its weights by name inside it.
            stops: calls of it.
        """
        stop = _telling(stops)
        if stop is None:
            return []
        make = type(block), tuple((name, view.shape) for name, view in views.items())
        specs = self._known.get(make)
        # Blocks that look alike may differ in what nobody sees, such as RoPE in some of them.
        if specs is None or not Proof(block, stop).all_hold(groups_of(specs, block, views)):
            self._known[make] = specs = found_pairs(block, views, stop)
        return [group for group in groups_of(specs, block, views) if not is_shared(group, self._shared)]


def _telling(stops: Sequence[Stop]) -> Stop | None:
    """The smallest call with enough tokens, or the largest; None for a single token, which shows nothing."""
    several = sorted((stop for stop in stops if stop.num_tokens > 1), key=lambda stop: stop.num_tokens)
    enough = [stop for stop in several if stop.num_tokens >= _TOKENS]
    return enough[0] if enough else several[-1] if several else None
