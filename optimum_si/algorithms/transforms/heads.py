""" "heads": a rotation of each value head, and of queries with keys where nothing stands between them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.targets import Target
from optimum_si.models.forward.layer_inputs import Site
from optimum_si.models.invariances import Space, Symmetries

from .basis import rotate
from .importance import ColumnTerm, RowTerm, Term
from .orthogonal import learn
from .surveying import Surveyor


def rotate_heads(symmetries: Symmetries, surveyor: Surveyor, targets: Mapping[str, Target]) -> bool:
    """Learn the rotations of each block on the dense model and absorb them. False where none lets less be lost.

    Args:
        symmetries: of the model.
        surveyor: of the model.
        targets: of each layer to prune, by name.
    """
    done = False
    for block, sites in surveyor.run():
        of_view = {view.name: site for site in sites for view in site.views}
        for spaces in (symmetries.values, symmetries.queries):
            space = spaces.get(block.name)
            if space is None or not (terms := _terms(space, of_view, targets)):
                continue
            rotation = learn(terms, space.parts, space.size)
            if rotation is not None:
                rotate(space, rotation)
                done = True
    return done


def _terms(space: Space, sites: Mapping[str, Site], targets: Mapping[str, Target]) -> list[Term]:
    """The layers to prune at a space of heads."""
    terms: list[Term] = []
    for side in space.writers:
        if (site := sites.get(side.view.name)) is not None:
            split = side.view.read().float().unflatten(0, (space.parts, side.repeats, space.size))
            terms.append(RowTerm(split, site.moments.diagonal.float(), targets[side.view.name]))
    for side in space.readers:
        if (site := sites.get(side.view.name)) is not None:
            split = side.view.read().float().unflatten(1, (space.parts, side.repeats, space.size))
            assert site.moments.gram is not None
            blocks = diagonal_blocks(site.moments.gram.float(), space, side.repeats)
            terms.append(ColumnTerm(split, blocks, targets[side.view.name]))
    return terms


def diagonal_blocks(gram: Tensor, space: Space, repeats: int) -> Tensor:
    """[parts, repeats, size, size] on the diagonal of H [d_in, d_in]."""
    count = space.parts * repeats
    blocks = gram.view(count, space.size, count, space.size)
    number = torch.arange(count, device=gram.device)
    return blocks[number, :, number].view(space.parts, repeats, space.size, space.size)
