""" "residual": one rotation of the residual stream, norms folded into their readers first."""

from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel

from optimum_si.algorithms.pruning.targets import Target
from optimum_si.models.forward.dense_pass import DensePass
from optimum_si.models.invariances import ResidualStream
from optimum_si.models.weight_view import WeightView

from .change_basis import fold, is_foldable, needs_untying, rotate
from .importance import ColumnTerm, RowTerm, Term
from .orthogonal import learn


def can_rotate(residual: ResidualStream | None) -> bool:
    """Whether a rotation of the stream leaves the function as it is."""
    return residual is not None and residual.rotatable and is_foldable(residual)


def rotate_residual(residual: ResidualStream, dense_pass: DensePass, targets: Mapping[str, Target]) -> bool:
    """Learn the rotation on the dense model and absorb it. False where no rotation lets less be lost.

    Args:
        residual: the stream.
        dense_pass: of the model.
        targets: of each layer to prune, by name.
    """
    _untie(dense_pass.model, needs_untying(residual))
    fold(residual)
    terms = _terms(residual, dense_pass, targets)
    rotation = learn(terms, 1, residual.basis.size, residual.centered) if terms else None
    if rotation is None:
        return False
    rotate(residual.basis, rotation)
    return True


def set_tied(model: PreTrainedModel, tied: bool) -> None:
    """Have config and model say whether head and embeddings are one matrix."""
    model.config.tie_word_embeddings = tied
    # transformers keeps a list of what it ties beside the config.
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def _untie(model: PreTrainedModel, heads: list[WeightView]) -> None:
    """Give tied heads weights of their own, where the final norm's weight can go nowhere else."""
    if not heads:
        return
    for view in heads:
        weight = view.tensor()
        setattr(view.module, view.parameter, nn.Parameter(weight.detach().clone(), weight.requires_grad))
    set_tied(model, False)


def _terms(residual: ResidualStream, dense_pass: DensePass, targets: Mapping[str, Target]) -> list[Term]:
    """The layers to prune that write or read the stream, with what they read."""
    reading = {reader.view.name for reader in residual.basis.readers}
    writing = {writer.view.name for writer in residual.basis.writers}
    terms: list[Term] = []
    for _, _, layer_inputs in dense_pass.run():
        for layer_input in layer_inputs:
            assert layer_input.moments.gram is not None
            gram = layer_input.moments.gram.float()[None, None]  # one for all readers of a layer_input
            for view in layer_input.views:
                weight, target = view.read().float(), targets[view.name]
                if view.name in reading:
                    terms.append(ColumnTerm(weight[:, None, None], gram, target))
                elif view.name in writing:
                    terms.append(RowTerm(weight[None, None], layer_input.moments.diagonal.float(), target))
    return terms
