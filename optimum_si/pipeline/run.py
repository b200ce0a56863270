"""One run over all blocks: what is checked before anything changes, the batches, and the loop."""

import time
from dataclasses import replace

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from optimum_si.algorithms.allocation.allocate import allocated
from optimum_si.algorithms.block_state import held_out
from optimum_si.algorithms.induction.held_out_loss import ModelJudge
from optimum_si.algorithms.pruning import get_method
from optimum_si.algorithms.pruning.method import PruningMethod, Settings
from optimum_si.algorithms.pruning.targets import make_target
from optimum_si.algorithms.quantization.grids import GRIDS
from optimum_si.algorithms.quantization.rounding import Rounder
from optimum_si.algorithms.reconstruction.method import Reconstructed
from optimum_si.algorithms.reconstruction.swapping import Swapped
from optimum_si.algorithms.transforms.apply import transform
from optimum_si.algorithms.transforms.surveying import Surveyor
from optimum_si.calibration import make_batches, sorted_by_length
from optimum_si.checkpoint.saved_scales import SavedScales
from optimum_si.config.groups import HELD_OUT
from optimum_si.config.si_config import SIConfig
from optimum_si.errors import CalibrationError, NumericalError
from optimum_si.models.forward.calls import BlockOutput, block_output, capture, evaluation_mode
from optimum_si.models.forward.streams import Stream
from optimum_si.models.structure import Structure, add_biases
from optimum_si.models.weight_view import WeightView
from optimum_si.report import Report
from optimum_si.warnings import warn

from .block import BlockStep, Outcome
from .deciding import Decider


Views = list[dict[str, WeightView]]


def checked_step(config: SIConfig, views: Views, write: bool) -> BlockStep:
    """The method and target of a recipe, checked against every layer before anything is changed.

    Raises:
        ConfigurationError: for a pattern that does not divide a layer.
    """
    method_class = get_method(config.method)
    settings = Settings(config.damping, config.damping_mode, config.block_size)
    target = make_target(config.sparsity, config.pattern, config.comparison_group or method_class.group)
    targets = {view.name: target for block in views for view in block.values()}
    for view in (view for block in views for view in block.values()):
        target.check(view.name, view.shape[1])
    method: PruningMethod = method_class(settings)
    fitter = None
    if config.reconstruction != "none":
        fitter = Reconstructed(method, config.reconstruction == "admm", settings, config.swaps)
    elif config.swaps:
        method = Swapped(method)
    if fitter is not None and config.repair == 0:  # each layer for itself: the fit is part of the method
        method, fitter = fitter, None
    elif fitter is not None and config.induction is not None:
        # Scales are chosen by what a fit makes of them; a search for masks in every trial would cost too much.
        method = Reconstructed(method, False, settings)
    rounder = None
    if write and config.quantization != "none":
        absorbs = config.induction is not None and config.induction.absorb
        rounder = Rounder(GRIDS[config.quantization], settings, absorbs)
    return BlockStep(config, method, targets, write, Decider(config, fitter, None, rounder))


def check_finite(model: PreTrainedModel) -> None:
    """Raise :class:`NumericalError` for NaN or infinity in any parameter, pruned or not."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise NumericalError(
                f"layer {name.removesuffix('.weight')!r} holds NaN or infinity: the checkpoint is damaged, or was "
                "saved in a dtype too narrow for it. Load another copy."
            )


def check_vocabulary(examples: list[dict[str, Tensor]], model: PreTrainedModel) -> None:
    """Token ids that a model has no embedding for would end in an index error deep inside it."""
    highest = max((int(example["input_ids"].max()) for example in examples if "input_ids" in example), default=-1)
    if highest < 0:
        return
    size = getattr(model.get_input_embeddings(), "num_embeddings", None)
    if size is not None and highest >= size:
        raise CalibrationError(
            f"the calibration data holds token {highest}, but the model embeds {size} tokens (0 to {size - 1}): "
            "use the tokenizer that belongs to this model."
        )


def run_blocks(
    task: str,
    model: PreTrainedModel,
    structure: Structure,
    views: Views,
    step: BlockStep,
    examples: list[dict[str, Tensor]],
    padding_id: int,
    saved: SavedScales | None,
    progress: bool,
    transformed: list[str],
) -> tuple[Report, dict[str, Outcome]]:
    """Treat block after block in place.

    Args:
        task: "prune" or "induce".
        model: what runs.
        structure: its blocks.
        views: of each block, the weights to prune.
        step: what is done to a block.
        examples: calibration examples.
        padding_id: fills shorter ones.
        saved: scales of an earlier ``induce``, taken up instead of learning.
        progress: show a bar.
        transformed: transformations that the model went through before.

    Returns:
        The report, and what became of each block, by name.
    """
    config, started = step.config, time.perf_counter()
    if config.induction is not None and config.induction.new_biases and not add_biases(model, structure):
        warn(
            f"induction.new_biases: {model.config.model_type!r} declares no biases that it could add; shifts go into "
            "the biases that it has.",
        )
    _warn_about(structure, model.config.model_type)
    with evaluation_mode(model):
        batches, judged = _batches(config, examples, padding_id)
        output = block_output(model, structure.blocks, batches[0])
        surveyor = Surveyor(model, structure.blocks, views, batches, output)
        applied = transform(structure, surveyor, config, step.targets, transformed)
        if applied and saved is not None:
            warn(
                f"the saved scales were learned before transformations={applied}, which move the channels: they are "
                "learned anew.",
            )
            saved = None
        stream = Stream.start(capture(model, structure.blocks, batches, output), _holds_out(config))
        if config.allocation != "uniform":
            step = replace(step, targets=allocated(step, structure.blocks, views, stream))
        judge = None
        if config.induction is not None and config.induction.selection == "model" and output is not BlockOutput.MORE:
            judge = ModelJudge(model, structure.blocks, batches[:judged], stream.masks[:judged], output)
        decider = replace(step.decider, judge=judge)
        step = replace(step, decider=decider, held_out=judged, shown=_middle(views))
        outcomes = {}
        blocks = list(zip(structure.blocks, views, strict=True))
        with tqdm(blocks, desc=task, unit="block", disable=not progress) as bar:
            for number, (block, selected) in enumerate(bar):
                bar.set_postfix_str(block.name)
                earlier = None if saved is None else saved.choice(block, model.device)
                last = number == len(blocks) - 1
                outcomes[block.name] = step(number, block, selected, stream, earlier, last)
    treated = {layer.name for outcome in outcomes.values() for layer in outcome.report.layers}
    chosen = [view.name for selected in views for view in selected.values()]
    if unread := [name for name in chosen if name not in treated]:
        warn(
            f"{len(unread)} layers were never called with the calibration data and stay dense: "
            f"{', '.join(unread[:4])}{', ...' if len(unread) > 4 else ''}.",
        )
    report = Report(
        task,
        config.method,
        config.target_name,
        config.induction is not None,
        [outcome.report for outcome in outcomes.values()],
        parameters=model.num_parameters(),
        zeros=_zeros(views),
        calibration_windows=len(examples),
        calibration_tokens=stream.tokens,
        seconds=time.perf_counter() - started,
        dense=_left_dense(structure, treated),
        steps=[*(f"{name} transformation" for name in applied), *config.steps],
        transformations=transformed + applied,
        architecture=_architecture(model),
        spectrum=next((outcome.spectrum for outcome in outcomes.values() if outcome.spectrum is not None), None),
    )
    return report, outcomes


def _batches(
    config: SIConfig, examples: list[dict[str, Tensor]], padding_id: int
) -> tuple[list[dict[str, Tensor]], int]:
    """Batches of calibration examples, and how many of the first are held out to choose by."""
    if not _holds_out(config):
        return make_batches(sorted_by_length(examples, 0), config.calibration.batch_size, padding_id), 0
    # Enough steps to learn in an epoch.
    size = max(min(config.calibration.batch_size, len(examples) // 16), 1)
    fraction = HELD_OUT if config.induction is None else config.induction.validation_fraction
    judged = held_out(len(examples), size, fraction)
    return make_batches(sorted_by_length(examples, judged * size), size, padding_id), judged


def _holds_out(config: SIConfig) -> bool:
    """Whether anything is compared with the dense model's blocks, on windows that are held out."""
    in_sequence = config.reconstruction != "none" and config.repair != 0
    return config.induction is not None or in_sequence or config.refine_epochs > 0


def _zeros(views: Views) -> int:
    return sum(int((view.read() == 0).sum()) for block in views for view in block.values())


def _middle(views: Views) -> int | None:
    """Number of the block in the middle of those that hold weights to prune."""
    numbers = [number for number, block in enumerate(views) if block]
    return numbers[len(numbers) // 2] if numbers else None


def _architecture(model: PreTrainedModel) -> str | None:
    """Name of the model's class where transformers has it."""
    return type(model).__name__ if type(model).__module__.startswith("transformers.") else None


def _left_dense(structure: Structure, treated: set[str]) -> list[str]:
    views = [view.name for block in structure.blocks for view in block.views.values()]
    return [name for name in views if name not in treated] + structure.untreated + structure.other_lists


def _warn_about(structure: Structure, model_type: str) -> None:
    """Say what the model has that cannot be treated as well as it could."""
    if not structure.declared:
        warn(
            f"model family {model_type!r} is not declared in optimum-si: it is pruned by every method, but without "
            "pairs that could absorb a scale.",
        )
    if structure.untreated:
        warn(
            f"{len(structure.untreated)} weights inside blocks cannot be treated and stay dense: "
            f"{', '.join(structure.untreated[:4])}{', ...' if len(structure.untreated) > 4 else ''}.",
        )
    if structure.other_lists:
        warn(f"other lists of blocks stay dense: {', '.join(structure.other_lists)}.")
