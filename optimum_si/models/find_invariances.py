"""The invariances of one model, from what its family declares."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from .invariances import Basis, BlockInvariances, Invariances, Reader, ResidualStream, Writer
from .norms import commutes_with_rotations, subtracts_mean
from .structure import Structure


def find_invariances(model: nn.Module, structure: Structure) -> Invariances:
    """What the family of a model declares, for this model."""
    declare = structure.family.invariances
    if declare is None:
        return Invariances()
    config: Any = model.config
    found = {block.name: declare(block.module, block.views, config) for block in structure.blocks}
    return Invariances(
        residual=_residual(model, structure, list(found.values())),
        value_heads={name: each.value_heads for name, each in found.items()},
        query_heads={name: each.query_heads for name, each in found.items() if each.query_heads is not None},
        mlp={name: each.mlp for name, each in found.items()},
    )


def _residual(model: nn.Module, structure: Structure, found: Sequence[BlockInvariances]) -> ResidualStream | None:
    declare = structure.family.ends
    ends = None if declare is None else declare(model)
    # Without a head the stream is what the model returns: its order and basis are the user's.
    if ends is None or not any(views for _, views in ends.reads):
        return None
    reads = [pair for each in found for pair in each.reads] + list(ends.reads)
    writers = [view for each in found for view in each.writers] + list(ends.writers)
    norms = [norm for each in found for norm in each.norms] + list(ends.norms)
    in_front = [norm for norm, _ in reads if norm is not None]
    readers = tuple(Reader(view) for _, views in reads for view in views)
    basis = Basis(
        "residual stream",
        1,
        readers[0].view.shape[1],
        tuple(map(Writer, writers)),
        readers,
        tuple(ends.tables),
        (*in_front, *norms),
    )
    centered = [subtracts_mean(norm) for norm in in_front]
    known = all(commutes_with_rotations(norm) for norm in in_front)
    behind_norms = not norms and all(norm is not None for norm, _ in reads)
    return ResidualStream(basis, reads, behind_norms and known, any(centered))
