"""The plan of a run: everything that follows from the recipe and the model, decided once, before anything changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor
from transformers import PreTrainedModel

from optimum_si.algorithms.induction.stage import InductionStage
from optimum_si.algorithms.layers import Scaling
from optimum_si.algorithms.layerwise.stage import PruningStage
from optimum_si.algorithms.pruning import get_method
from optimum_si.algorithms.pruning.method import PruningMethod, bare_method
from optimum_si.algorithms.pruning.targets import Target, make_target
from optimum_si.algorithms.quantization.stage import RoundingStage
from optimum_si.algorithms.reconstruction.method import Reconstructed
from optimum_si.algorithms.reconstruction.stage import FittingStage
from optimum_si.algorithms.reconstruction.swapping import Swapped
from optimum_si.algorithms.refinement.stage import RefinementStage
from optimum_si.algorithms.stage import BlockStage, Need
from optimum_si.checkpoint.saved_scales import SavedScales
from optimum_si.config.si_config import SIConfig
from optimum_si.models.selection import select_views
from optimum_si.models.structure import Block, Structure, find_structure
from optimum_si.models.weight_view import WeightView

from .checks import check_call, check_finite, check_generation, check_placed


@dataclass(frozen=True, eq=False)
class Plan:
    """What a run does, complete.

    Args:
        config: the recipe.
        model: what is pruned.
        structure: of the model.
        views: for each block, the weights to prune, by name inside the block.
        write: whether pruned weights are stored (``prune``), or scales are only absorbed (``induce``).
        method: pruning method with which choices are made.
        targets: of each layer, by the name of its view.
        shiftable: names of layers whose bias may change where they have one.
        stages: what a block goes through, in order.
        row_importance: of the outputs of a layer, [d_out], by the name of its view, where some allocation measured it.
        saved: scalings of an earlier run by block name, taken up instead of learning; None learns.
    """

    config: SIConfig
    model: PreTrainedModel
    structure: Structure
    views: Sequence[Mapping[str, WeightView]]
    write: bool
    method: PruningMethod
    targets: Mapping[str, Target]
    shiftable: frozenset[str]
    stages: tuple[BlockStage, ...]
    row_importance: Mapping[str, Tensor] = field(default_factory=dict)
    saved: Mapping[str, Scaling] | None = None

    @property
    def needs(self) -> frozenset[Need]:
        """What the run has to collect for its stages, and for the method by which they choose."""
        of_method = {Need.GRAM} if self.method.needs_gram else set()
        return frozenset(need for stage in self.stages for need in stage.needs) | of_method

    @property
    def spectrum_block(self) -> int | None:
        """Position of the block whose singular values are reported: in the middle of those with weights to prune."""
        found = [index for index, views in enumerate(self.views) if views]
        return found[len(found) // 2] if found and self.write else None

    def may_shift(self, view: WeightView) -> bool:
        """Whether the run may change the bias of a layer."""
        return view.name in self.shiftable and view.read_bias() is not None

    def treats(self, block: Block) -> bool:
        """Whether a block has weights to prune."""
        position = self.structure.blocks.index(block)
        return bool(self.views[position])

    def with_blocks_of(self, other: "Plan") -> "Plan":
        """The same run over the blocks of another plan first."""
        blocks = [*other.structure.blocks, *self.structure.blocks]
        return replace(self, structure=replace(self.structure, blocks=blocks), views=[*other.views, *self.views])

    def in_order(self, names: Sequence[str]) -> "Plan":
        """The same run over the blocks of these names, in their order."""
        views = {block.name: views for block, views in zip(self.structure.blocks, self.views, strict=True)}
        return replace(self, structure=self.structure.in_order(names), views=[views[name] for name in names])

    def with_saved(self, saved: Mapping[str, Scaling] | None) -> "Plan":
        """The same run with scalings of an earlier run by block name; None learns."""
        return replace(self, saved=saved, stages=_stages(self.config, self.write, saved))

    def taking_up(self, scales: SavedScales | None) -> tuple["Plan", SavedScales | None]:
        """The same run with what `induce` left, and what is left of that: scales that this run takes out are none."""
        if scales is None or self.config.induction is None:
            return self, scales
        fit = self.write and scales.fit(self.config)
        plan = self.with_saved(scales.scalings(self.config, self.model.device)) if fit else self
        return plan, scales.taken_out(plan.structure.blocks)


def make_plan(config: SIConfig, model: PreTrainedModel, write: bool) -> Plan:
    """The plan of a recipe for a model; everything that may refuse a run before its data is read is checked here.

    Args:
        config: the recipe.
        model: what is pruned.
        write: whether pruned weights are stored.

    Raises:
        ConfigurationError: for a recipe that does not fit the model, such as a pattern that does not divide a layer.
        UnsupportedModelError: for a model without blocks that can be pruned.
        NumericalError: for NaN or infinity in any weight.
    """
    check_call(config)
    check_placed(model)
    structure = find_structure(model)
    views = select_views(structure, config.include, config.exclude, config.stacks)
    method, bare = _method(config), get_method(config.method)
    target = make_target(config.sparsity, config.pattern, config.comparison_group or bare.group)
    targets = {}
    for view in (view for block in views for view in block.values()):
        target.check(view.name, view.shape[1])
        targets[view.name] = target
    check_finite(model)
    check_generation(model)
    shiftable, stages = _shiftable(config, structure), _stages(config, write, None)
    return Plan(config, model, structure, views, write, method, targets, shiftable, stages)


def _shiftable(config: SIConfig, structure: Structure) -> frozenset[str]:
    """Names of the layers whose bias may change: none where the recipe shifts none."""
    if not (config.fits_in_sequence if config.induction is None else config.induction.shift):
        return frozenset()
    return frozenset(
        view.name
        for block in structure.blocks
        for name, view in block.views.items()
        if name not in block.family.no_shift
    )


def _method(config: SIConfig) -> PruningMethod:
    """The method as choices are made with it: its fit is part of it where each layer is fitted for itself."""
    method = bare_method(config)
    if config.reconstruction == "none":
        return Swapped(method) if config.swaps else method
    if not config.fits_in_sequence:
        return Reconstructed.of(config)
    # Scales are chosen by what a fit makes of them; a search for masks in every trial would cost too much.
    return method if config.induction is None else Reconstructed(method, False, method.settings)


def _stages(config: SIConfig, write: bool, saved: Mapping[str, Scaling] | None) -> tuple[BlockStage, ...]:
    """What each block goes through; a new algorithm joins here."""
    stages: list[BlockStage] = []
    if config.induction is not None:
        stages.append(InductionStage.of(config, saved))
    stages.append(FittingStage.of(config) if config.fits_in_sequence else PruningStage())
    if config.refine_epochs:
        stages.append(RefinementStage.of(config))
    if write and config.quantization != "none":
        stages.append(RoundingStage.of(config))
    return tuple(stages)
