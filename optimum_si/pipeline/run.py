"""One run over all blocks: batches, what looks at the whole model first, the loop, and the report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from optimum_si.algorithms.allocation.stage import allocate
from optimum_si.algorithms.stage import Need
from optimum_si.algorithms.transforms.stage import transform
from optimum_si.calibration import make_batches, sorted_by_length
from optimum_si.config.groups import HELD_OUT
from optimum_si.config.si_config import SIConfig
from optimum_si.models.biases import add_biases
from optimum_si.models.forward.dense_pass import DensePass
from optimum_si.models.forward.modes import evaluation_mode, without_cache
from optimum_si.models.forward.runs import suspending
from optimum_si.models.forward.shared import calls_of
from optimum_si.models.forward.streams import Streams
from optimum_si.models.forward.trace import trace
from optimum_si.models.inventory import take_inventory
from optimum_si.models.structure import Structure
from optimum_si.report import Report
from optimum_si.report.text import printable
from optimum_si.warnings import warn

from .announcement import announce
from .block import BlockPruner, BlockResult
from .checks import check_result
from .costs import warn_of_costs
from .explosion import PerplexitySample
from .plan import Plan
from .progress import BlockBar
from .recovery import dense_references, recovered
from .short_text import warn_of_short_text


#: Windows that choices are made on at least, where a quarter of all are that many: fewer cannot tell gain from noise.
FEWEST_HELD_OUT = 8


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run left.

    Args:
        report: its numbers.
        blocks: what became of each block, by name.
    """

    report: Report
    blocks: Mapping[str, BlockResult]


def run(
    plan: Plan,
    examples: list[dict[str, Tensor]],
    padding_id: int,
    progress: bool,
    transformed: Sequence[str] = (),
    recovery_windows: Sequence[dict[str, Tensor]] = (),
) -> RunResult:
    """Treat block after block in place.

    Args:
        plan: what is done.
        examples: calibration examples.
        padding_id: token that fills shorter ones.
        progress: whether to show a bar.
        transformed: transformations that the model went through before.
        recovery_windows: examples of a recovery of the whole model.
    """
    config, model, structure, started = plan.config, plan.model, plan.structure, time.perf_counter()
    if config.induction is not None and config.induction.new_biases and not add_biases(model, structure):
        warn(
            f"induction.new_biases: {model.config.model_type!r} declares no biases that it could add; shifts go into "
            "the biases that it has."
        )
    if progress:
        announce(plan)
    _warn_about(structure)
    warn_of_costs(plan, examples)
    with evaluation_mode(model), without_cache(model), torch.compiler.set_stance("force_eager"):
        batches, num_held_out = _batches(plan, examples, padding_id)
        complete = plan
        plan, repeated = _in_order(plan, examples)
        modules = [block.module for block in plan.structure.blocks]
        with suspending(modules):
            sample = PerplexitySample.of(plan, batches, num_held_out)
            dense_pass = DensePass(model, plan.structure.blocks, plan.views, batches)
            plan, applied = _prepared(plan, dense_pass, examples, transformed)
            references = dense_references(plan, recovery_windows, padding_id)
        results = _pruned_on_all_calls(repeated, batches, num_held_out)
        with suspending(modules):
            then = () if references is None else ("recovery",)
            in_turn, tokens = _pruned_in_turn(plan, batches, num_held_out, then, progress)
        results |= in_turn
        plan = plan.with_blocks_of(repeated)
        recovery = recovered(plan, references, progress)
        if plan.write:
            check_result(model, plan.views, [result.report for result in results.values()])
        # After everything that changes weights.
        perplexity = None if sample is None else sample.compared()
    report = _report(plan, complete, results, [*transformed], applied)
    report.recovery = recovery
    report.perplexity = perplexity
    report.calibration_windows, report.calibration_tokens = len(examples), tokens
    report.seconds = time.perf_counter() - started
    return RunResult(report, results)


def _in_order(plan: Plan, examples: Sequence[Mapping[str, Tensor]]) -> tuple[Plan, Plan]:
    """The plan for blocks that are called once in a forward pass, in the order of their calls, and for the others."""
    wanted = [block.name for block in plan.structure.blocks if plan.treats(block)]
    seen = trace(plan.model, plan.structure, examples, wanted)
    once = [name for name in seen.order if name not in seen.repeated]
    return plan.in_order(once), plan.in_order([name for name in seen.order if name in seen.repeated])


def _pruned_on_all_calls(
    plan: Plan, batches: Sequence[dict[str, Tensor]], num_held_out: int
) -> dict[str, BlockResult]:
    """Blocks that are called several times in one pass, before all others."""
    pruner, results = BlockPruner(plan, num_held_out), {}
    for index, block in enumerate(plan.structure.blocks):
        results[block.name] = pruner.prune_shared(index, calls_of(plan.model, block, batches))
    return results


def _pruned_in_turn(
    plan: Plan, batches: Sequence[dict[str, Tensor]], num_held_out: int, then: Sequence[str], progress: bool
) -> tuple[dict[str, BlockResult], int]:
    """Each block when all runs have come to it, and the tokens that they were pruned on.

    Args:
        plan: of the run; its blocks are suspended.
        batches, num_held_out: of calibration.
        then: phases that follow, for the bar.
        progress: whether to show it.
    """
    blocks, pruner, results = plan.structure.blocks, BlockPruner(plan, num_held_out), {}
    kinds = [tuple(view.shape for view in views.values()) for views in plan.views]
    streams = Streams(plan.model, blocks, batches, dense=Need.DENSE_STREAM in plan.needs)
    try:
        tokens = _tokens(batches) or streams.tokens
        warn_of_short_text(plan, tokens)
        with BlockBar(_task(plan), kinds, then, disable=not progress) as bar:
            while (index := streams.pruned.next) is not None:
                bar.set_postfix_str(printable(blocks[index].name))
                results[blocks[index].name] = pruner.prune(index, streams)
                bar.update()
                if index == len(blocks) - 1:
                    break
    finally:
        streams.close()
    return results, tokens


def _tokens(batches: Sequence[Mapping[str, Tensor]]) -> int:
    """Real tokens of text; 0 where there is none."""
    return sum(
        int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()
        for batch in batches
        if "input_ids" in batch
    )


def _task(plan: Plan) -> str:
    return "prune" if plan.write else "induce"


def _prepared(
    plan: Plan, dense_pass: DensePass, examples: Sequence[Mapping[str, Tensor]], transformed: Sequence[str]
) -> tuple[Plan, list[str]]:
    """The plan after what looks at the whole dense model, and the transformations that were applied."""
    config = plan.config
    applied = transform(plan.structure, dense_pass, config, plan.targets, transformed)
    if applied and plan.saved is not None:
        warn(
            f"the saved scales were learned before transformations={applied}, which move the channels: they are "
            "learned anew."
        )
        plan = plan.with_saved(None)
    if config.allocation != "uniform":
        found = allocate(config, plan.targets, plan.may_shift, dense_pass, examples)
        plan = replace(plan, targets=found.targets, row_importance=found.row_importance)
    return plan, applied


def _batches(plan: Plan, examples: list[dict[str, Tensor]], padding_id: int) -> tuple[list[dict[str, Tensor]], int]:
    """Batches of calibration examples, and how many of the first are held out to choose by."""
    config = plan.config
    if Need.DENSE_STREAM not in plan.needs:
        return make_batches(sorted_by_length(examples, 0), config.calibration.batch_size, padding_id), 0
    # Enough steps to learn in an epoch.
    size = max(min(config.calibration.batch_size, len(examples) // 16), 1)
    num_held_out = held_out(len(examples), size, _held_out_fraction(config))
    ordered, chosen_by = sorted_by_length(examples, num_held_out * size), num_held_out * size
    held = make_batches(ordered[:chosen_by], size, padding_id)
    return held + make_batches(ordered[chosen_by:], size, padding_id), len(held)


def _held_out_fraction(config: SIConfig) -> float:
    return HELD_OUT if config.induction is None else config.induction.validation_fraction


def held_out(windows: int, batch_size: int, fraction: float) -> int:
    """How many of the first batches are held out: at least one, and not all unless there is just one.

    Args:
        windows: calibration windows in all.
        batch_size: windows in a batch.
        fraction: of the windows that is wanted.
    """
    batches = -(-windows // batch_size)
    fewest = min(FEWEST_HELD_OUT, windows // 4) // batch_size
    return 1 if batches < 2 else min(max(round(fraction * batches), fewest, 1), batches - 1)


def _report(
    plan: Plan,
    complete: Plan,
    results: Mapping[str, BlockResult],
    transformed: list[str],
    applied: list[str],
) -> Report:
    """The numbers of a run, and a warning where calibration data did not reach layers.

    Args:
        plan: as it was done.
        complete: with the blocks that no data came to.
        results: of each block.
        transformed, applied: transformations of earlier runs, and of this one.
    """
    config, model, structure = plan.config, plan.model, complete.structure
    treated = {layer.name for result in results.values() for layer in result.report.layers}
    chosen = [view.name for views in complete.views for view in views.values()]
    if unread := [name for name in chosen if name not in treated]:
        warn(
            f"{len(unread)} layers were never called with the calibration data and stay dense: "
            f"{', '.join(unread[:4])}{', ...' if len(unread) > 4 else ''}."
        )
    every = {view.name: view for block in structure.blocks for view in block.views.values()}
    inventory = take_inventory(model, structure, [every[name] for name in chosen if name in treated], unread)
    return Report(
        _task(plan),
        config.method,
        config.target_name,
        config.induction is not None,
        [result.report for result in results.values()],
        parameters=inventory.total,
        zeros=sum(int((view.read() == 0).sum()) for views in plan.views for view in views.values()),
        all_zeros=sum(int((parameter == 0).sum()) for parameter in model.parameters()),
        dense=[name for name in every if name not in treated] + structure.untreated + structure.left_alone,
        dense_parts=dict(inventory.dense),
        steps=[*(f"{name} transformation" for name in applied), *config.steps],
        transformations=transformed + applied,
        # The name of the model's class where transformers has it.
        architecture=type(model).__name__ if type(model).__module__.startswith("transformers.") else None,
        spectrum=next((result.spectrum for result in results.values() if result.spectrum is not None), None),
    )


def _warn_about(structure: Structure) -> None:
    """Say what the model has that cannot be treated as well as it could."""
    if undeclared := structure.undeclared:
        warn(
            f"the model family behind {', '.join(map(repr, undeclared))} is not declared in optimum-si: it is pruned "
            "by every method; scales are absorbed only where a trial on its blocks shows that they may be."
        )
    if structure.untreated:
        warn(
            f"{len(structure.untreated)} weights inside blocks cannot be treated and stay dense: "
            f"{', '.join(structure.untreated[:4])}{', ...' if len(structure.untreated) > 4 else ''}."
        )
