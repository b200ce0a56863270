"""The pairs of a block that no family declares."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import nn

from optimum_si.models.experts.expert import Expert, Experts
from optimum_si.models.forward.stops import Stop
from optimum_si.models.scale_groups import ScaledAxis, ScaleGroup
from optimum_si.models.weight_view import WeightView

from .proof import Proof
from .seen import Seen, seen_in
from .sizes import head_sizes
from .spec import Spec


def found_pairs(block: nn.Module, views: Mapping[str, WeightView], stop: Stop) -> list[Spec]:
    """All pairs that are proposed and proven on one call.

    Each norm is tried with all that was seen to read it; each layer with each later one that its output may come to;
    any two layers as queries and keys, first with a scale for each channel, then with heads and RoPE.

    Args:
        block: with dense weights, in the dtype of the call.
        views: its weights by name inside it.
        stop: the call, of more than one token.
    """
    proof, seen, sizes = Proof(block, stop), seen_in(block, views, stop), head_sizes(block)
    siblings = _siblings(block, seen)
    tried = _tried(block, seen, views, siblings)

    def holds(spec: Spec) -> bool:
        group = spec.group(block, views)
        return group is not None and group.absorbable and proof.holds(group)

    found = [spec for norm, names in seen.norms.items() if names and holds(spec := Spec(norm, tuple(names)))]
    for first, second in combinations(tried, 2):
        one, other = views[first], views[second]
        if one.module is not other.module and seen.inputs[second] not in seen.made:
            found += _first_that(holds, _flows(proof, one, other, first, second, sizes))
        for query, key in ((first, second), (second, first)):
            if _fits(views[query].shape[0], views[key].shape[0]):
                found += _first_that(holds, _products(proof, views[query], views[key], query, key, sizes))
                break
    return [sibling for spec in found for sibling in _in_all(spec, siblings)]


def groups_of(specs: Iterable[Spec], block: nn.Module, views: Mapping[str, WeightView]) -> list[ScaleGroup]:
    """The scale groups of pairs in one block."""
    groups = (spec.group(block, views) for spec in specs)
    return [group for group in groups if group is not None]


def _flows(
    proof: Proof, one: WeightView, other: WeightView, first: str, second: str, sizes: Sequence[int]
) -> Iterator[Spec]:
    """A layer to a later one, coarse proof first."""
    rows, columns = one.shape[0], other.shape[1]
    if not _fits(columns, rows):
        return
    for degree in (1, 2) if rows == columns else (1,):
        if not proof.holds(_even(one, other, "columns", degree), sided=False):
            continue
        if rows == columns:
            yield Spec(first, (second,), degree=degree)
        else:
            yield from (Spec(first, (second,), head_size=size) for size in sizes if rows % size == 0)


def _products(
    proof: Proof, one: WeightView, other: WeightView, query: str, key: str, sizes: Sequence[int]
) -> Iterator[Spec]:
    """Two layers whose outputs are multiplied with each other, coarse proof first."""
    if not proof.holds(_even(one, other, "rows"), sided=False):
        return
    spec = Spec(query, (key,), both_rows=True)
    if one.shape[0] == other.shape[0]:
        yield spec
    for size in sizes:
        if other.shape[0] % size or one.shape[0] % size:
            continue
        yield replace(spec, head_size=size)
        # The fewer channels share a scale, the better.
        parts = {part for part in (size // 4, size // 2, 3 * size // 4, size) if part > 1 and part % 2 == 0}
        for part in sorted(parts):
            yield replace(spec, head_size=size, rotary_size=part)
            yield replace(spec, head_size=size, rotary_size=part, interleaved=True)


def _even(one: WeightView, other: WeightView, axis: str, degree: int = 1) -> ScaleGroup:
    """One number for all channels: what does not let it through lets no scale through."""
    zeros = [torch.zeros(view.shape[0], dtype=torch.long) for view in (one, other)]
    if axis == "columns":
        reads = ScaledAxis(other, "columns", 1.0, torch.zeros(other.shape[1], dtype=torch.long))
        return ScaleGroup("even", 1, (ScaledAxis(one, "rows", -1.0 / degree, zeros[0]), reads), base=2**degree)
    return ScaleGroup("even", 1, (ScaledAxis(one, "rows", 1.0, zeros[0]), ScaledAxis(other, "rows", -1.0, zeros[1])))


def _fits(more: int, fewer: int) -> bool:
    return more % fewer == 0


def _first_that(holds: Callable[[Spec], bool], specs: Iterator[Spec]) -> list[Spec]:
    found = next((spec for spec in specs if holds(spec)), None)
    return [] if found is None else [found]


def _siblings(block: nn.Module, seen: Seen) -> dict[str, list[str]]:
    """For the first expert of each mixture that tokens came to, its name and those of the others."""
    found = {}
    for name, module in block.named_modules():
        # Experts of our own making know their pairs.
        if isinstance(module, Experts) and not any(isinstance(child, Expert) for child in module.children()):
            every = [f"{name}.{local}." for local in module.names]
            reached = [prefix for prefix in every if any(reader.startswith(prefix) for reader in seen.inputs)]
            if reached:
                found[reached[0]] = every
    return found


def _tried(
    block: nn.Module, seen: Seen, views: Mapping[str, WeightView], siblings: Mapping[str, Sequence[str]]
) -> list[str]:
    """Names of weights in the order of their calls; of experts, the first alone."""
    mixtures = tuple(f"{name}." for name, module in block.named_modules() if isinstance(module, Experts))
    return [
        name
        for name in seen.inputs
        if name in views and (not name.startswith(mixtures) or name.startswith(tuple(siblings)))
    ]


def _in_all(spec: Spec, siblings: Mapping[str, Sequence[str]]) -> list[Spec]:
    """A pair inside one expert, in every expert; any other as it is."""
    for known, every in siblings.items():
        if spec.first.startswith(known):
            return [
                replace(
                    spec,
                    first=prefix + spec.first.removeprefix(known),
                    second=tuple(prefix + name.removeprefix(known) for name in spec.second),
                )
                for prefix in every
            ]
    return [spec]
