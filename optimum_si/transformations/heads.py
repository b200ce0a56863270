""" "heads": a rotation of each value head, and of queries with keys where nothing stands between them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..models.collect import Site
from ..models.symmetries import Space, Symmetries
from .basis import rotate
from .importance import ColumnTerm, RowTerm, Term
from .orthogonal import learn
from .surveying import Surveyor


def rotate_heads(symmetries: Symmetries, surveyor: Surveyor) -> bool:
    """Learn the rotations of each block on the dense model and absorb them. False where there are none."""
    done = False
    for block, sites in surveyor.run():
        of_view = {view.name: site for site in sites for view in site.views}
        for spaces in (symmetries.values, symmetries.queries):
            space = spaces.get(block.name)
            terms = [] if space is None else _terms(space, of_view)
            if space is not None and terms:
                rotate(space, learn(terms, space.parts, space.size))
                done = True
    return done


def _terms(space: Space, sites: Mapping[str, Site]) -> list[Term]:
    """The layers to prune at a space of heads."""
    terms: list[Term] = []
    for side in space.writers:
        if (site := sites.get(side.view.name)) is not None:
            split = side.view.read().float().unflatten(0, (space.parts, side.repeats, space.size))
            terms.append(RowTerm(split, site.moments.diagonal.float()))
    for side in space.readers:
        if (site := sites.get(side.view.name)) is not None:
            split = side.view.read().float().unflatten(1, (space.parts, side.repeats, space.size))
            assert site.moments.gram is not None
            terms.append(ColumnTerm(split, diagonal_blocks(site.moments.gram.float(), space, side.repeats)))
    return terms


def diagonal_blocks(gram: Tensor, space: Space, repeats: int) -> Tensor:
    """[parts, repeats, size, size] on the diagonal of H [d_in, d_in]."""
    count = space.parts * repeats
    blocks = gram.view(count, space.size, count, space.size)
    number = torch.arange(count, device=gram.device)
    return blocks[number, :, number].view(space.parts, repeats, space.size, space.size)
