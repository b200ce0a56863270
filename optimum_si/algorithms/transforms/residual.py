""" "residual": one rotation of the residual stream, norms folded into their readers first."""

from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel

from optimum_si.algorithms.pruning.targets import Target
from optimum_si.models.invariances import Residual
from optimum_si.models.weight_view import WeightView

from .basis import fold, is_foldable, needs_untying, rotate
from .importance import ColumnTerm, RowTerm, Term
from .orthogonal import learn
from .surveying import Surveyor


def can_rotate(residual: Residual | None) -> bool:
    """Whether a rotation of the stream leaves the function as it is."""
    return residual is not None and residual.rotatable and is_foldable(residual)


def rotate_residual(residual: Residual, surveyor: Surveyor, targets: Mapping[str, Target]) -> bool:
    """Learn the rotation on the dense model and absorb it. False where no rotation lets less be lost.

    Args:
        residual: the stream.
        surveyor: of the model.
        targets: of each layer to prune, by name.
    """
    _untie(surveyor.model, needs_untying(residual))
    fold(residual)
    terms = _terms(residual, surveyor, targets)
    rotation = learn(terms, 1, residual.space.size, residual.centered) if terms else None
    if rotation is None:
        return False
    rotate(residual.space, rotation)
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


def _terms(residual: Residual, surveyor: Surveyor, targets: Mapping[str, Target]) -> list[Term]:
    """The layers to prune that write or read the stream, with what they read."""
    reading = {side.view.name for side in residual.space.readers}
    writing = {side.view.name for side in residual.space.writers}
    terms: list[Term] = []
    for _, sites in surveyor.run():
        for site in sites:
            assert site.moments.gram is not None
            gram = site.moments.gram.float()[None, None]  # one for all readers of a site
            for view in site.views:
                weight, target = view.read().float(), targets[view.name]
                if view.name in reading:
                    terms.append(ColumnTerm(weight[:, None, None], gram, target))
                elif view.name in writing:
                    terms.append(RowTerm(weight[None, None], site.moments.diagonal.float(), target))
    return terms
