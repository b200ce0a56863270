"""Transformations of a whole model: which apply, the proof that its function stays, and a record of what was done."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from optimum_si.algorithms.pruning.targets import NM, Target
from optimum_si.config.choices import TRANSFORMATIONS
from optimum_si.config.si_config import SIConfig
from optimum_si.models.find_invariances import find_invariances
from optimum_si.models.forward.dense_pass import DensePass
from optimum_si.models.forward.modes import inputs_for, widened, without_cache
from optimum_si.models.structure import Structure
from optimum_si.warnings import warn

from .heads import rotate_heads
from .permutation import permute_channels
from .residual import can_rotate, rotate_residual, set_tied


logger = logging.getLogger(__name__)

#: Examples that the function is compared on, and the relative change of the answer that rounding may bring.
_PROBES = 2
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-4}
#: Share of zeros from which a weight counts as sparse already.
_SPARSE = 0.01


def transform(
    structure: Structure,
    dense_pass: DensePass,
    config: SIConfig,
    targets: Mapping[str, Target],
    done: Iterable[str] = (),
) -> list[str]:
    """Reshape a dense model in place, as the recipe asks; the function stays, which is measured after each step.

    Weights are fp32 meanwhile (fp64 where they are), and cast back once. A transformation that the model's family does
    not have, or that moves the model's answers, is taken back and left out with a warning.

    Args:
        structure: of the model.
        dense_pass: gives statistics of the model as it is at the moment.
        config: the recipe.
        targets: of each layer to prune, by name.
        done: transformations that the model went through before.

    Returns:
        The names of those that were applied.
    """
    wanted = [name for name in TRANSFORMATIONS if name in (config.transformations or []) and name not in done]
    if "permutation" in wanted and not any(isinstance(target, NM) for target in targets.values()):
        logger.info("transformation 'permutation' does something for patterns only: left out")
        wanted.remove("permutation")
    if not wanted:
        return []
    model = dense_pass.model
    if sparse := _sparse_layers(structure):
        warn(
            f"transformations={wanted} would fill the zeros that {len(sparse)} layers have already ({sparse[0]}, ...) "
            "and are left out: transform the dense model, and prune all layers in one run.",
        )
        return []
    invariances = find_invariances(model, structure)
    steps: dict[str, Callable[[], bool]] = {}
    if invariances.mlp:
        steps["heads"] = lambda: rotate_heads(invariances, dense_pass, targets)
        steps["permutation"] = lambda: permute_channels(invariances, dense_pass, targets, config.seed)
    residual = invariances.residual
    if residual is not None and can_rotate(residual):
        steps["residual"] = lambda: rotate_residual(residual, dense_pass, targets)
    if missing := [name for name in wanted if name not in steps]:
        warn(
            f"transformations={missing} do not apply to this {type(model).__name__} (model type "
            f"{model.config.model_type!r}) and are left out.",
        )
    wanted = [name for name in wanted if name in steps]
    if not wanted:
        return []
    known = {id(parameter) for parameter in model.parameters()}
    dtype = next(model.parameters()).dtype
    with widened(model) as wide:
        probe = {name: value[:_PROBES] for name, value in dense_pass.batches[0].items()}
        applied = [name for name in wanted if _applied(name, steps[name], model, probe, _TOLERANCE[wide])]
    for parameter in model.parameters():
        if id(parameter) not in known:  # an untied head
            parameter.data = parameter.data.to(dtype)
    return applied


def _sparse_layers(structure: Structure) -> list[str]:
    """Names of weights with zeros that somebody made."""
    views = (view for block in structure.blocks for view in block.views.values())
    return [view.name for view in views if float((view.read() == 0).float().mean()) >= _SPARSE]


def _applied(
    name: str, step: Callable[[], bool], model: PreTrainedModel, probe: dict[str, Tensor], tolerance: float
) -> bool:
    """Take a step; take it back where it changes what the model answers. True where it did something that holds."""
    before, expected = _Snapshot(model), _answer(model, probe)
    if not step():
        before.restore()
        logger.info("transformation %r: nothing to gain, left out", name)
        return False
    change = float((_answer(model, probe) - expected).norm() / expected.norm().clamp_min(1e-30))
    if change <= tolerance:
        if before.tied and not getattr(model.config, "tie_word_embeddings", None):
            warn(
                f"transformation {name!r}: the head takes up the final norm's weight, so it is no longer tied to the "
                "embeddings: the checkpoint grows by one such matrix, and its config says tie_word_embeddings=False.",
            )
        return True
    before.restore()
    warn(
        f"transformation {name!r} would move the answers of this {type(model).__name__} (model type "
        f"{model.config.model_type!r}) by {change:.1%}, so it was taken back: its structure is not the one that the "
        "family declares.",
    )
    return False


@torch.no_grad()
def _answer(model: PreTrainedModel, probe: dict[str, Tensor]) -> Tensor:
    """What the model gives for a few examples, flat, fp64."""
    with without_cache(model):
        output: Any = model(**inputs_for(model, probe))
    return (output.logits if "logits" in output else output[0]).double().flatten()


class _Snapshot:
    """All parameters of a model, to go back to: values, and which are tied."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.places = [
            (module, name, parameter)
            for module in model.modules()
            for name, parameter in module.named_parameters(recurse=False)
        ]
        self.values = {id(parameter): parameter.detach().clone() for _, _, parameter in self.places}
        self.tied = getattr(model.config, "tie_word_embeddings", None)

    @torch.no_grad()
    def restore(self) -> None:
        """Put every parameter back in its place with its value."""
        for module, name, parameter in self.places:
            setattr(module, name, parameter)
            parameter.copy_(self.values[id(parameter)])
        if getattr(self.model.config, "tie_word_embeddings", None) != self.tied:
            set_tied(self.model, bool(self.tied))
