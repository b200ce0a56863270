""" "heads": a rotation of each value head, and of queries with keys where nothing stands between them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from optimum_si.algorithms.pruning.targets import Target
from optimum_si.models.forward.dense_pass import DensePass
from optimum_si.models.forward.layer_inputs import LayerInput
from optimum_si.models.invariances import Basis, Invariances

from .change_basis import rotate
from .importance import ColumnTerm, RowTerm, Term
from .orthogonal import learn


def rotate_heads(invariances: Invariances, dense_pass: DensePass, targets: Mapping[str, Target]) -> bool:
    """Learn the rotations of each block on the dense model and absorb them. False where none lets less be lost.

    Args:
        invariances: of the model.
        dense_pass: of the model.
        targets: of each layer to prune, by name.
    """
    done = False
    for _, block, layer_inputs in dense_pass.run():
        of_view = {view.name: layer_input for layer_input in layer_inputs for view in layer_input.views}
        for bases in (invariances.value_heads, invariances.query_heads):
            basis = bases.get(block.name)
            if basis is None or not (terms := _terms(basis, of_view, targets)):
                continue
            rotation = learn(terms, basis.parts, basis.size)
            if rotation is not None:
                rotate(basis, rotation)
                done = True
    return done


def _terms(basis: Basis, layer_inputs: Mapping[str, LayerInput], targets: Mapping[str, Target]) -> list[Term]:
    """The layers to prune at a basis of heads."""
    terms: list[Term] = []
    for writer in basis.writers:
        if (found := layer_inputs.get(writer.view.name)) is not None:
            weight = writer.split(basis).float()
            terms.append(RowTerm(weight, found.moments.diagonal.float(), targets[writer.view.name]))
    for reader in basis.readers:
        if (found := layer_inputs.get(reader.view.name)) is not None:
            assert found.moments.gram is not None
            blocks = diagonal_blocks(found.moments.gram.float(), basis, reader.repeats)
            terms.append(ColumnTerm(reader.split(basis).float(), blocks, targets[reader.view.name]))
    return terms


def diagonal_blocks(gram: Tensor, basis: Basis, repeats: int) -> Tensor:
    """[parts, repeats, size, size] on the diagonal of H [d_in, d_in]."""
    count = basis.parts * repeats
    blocks = gram.view(count, basis.size, count, basis.size)
    index = torch.arange(count, device=gram.device)
    return blocks[index, :, index].view(basis.parts, repeats, basis.size, basis.size)
