"""What a run did, as text that fits a screen."""

from collections import Counter
from collections.abc import Iterable

from .kinds import KindOfLayer, kinds_of_layers, largest_kinds, worst_layers
from .records import CHOICES, LayerReport, RunReport
from .recovery import RecoveryReport
from .table import format_table
from .text import printable


def layer_table(layers: Iterable[LayerReport]) -> str:
    """A line for each layer."""
    header = ["layer", "shape", "target", "zeros", "error plain", "error now", "s", "absorbed"]
    return format_table(header, [_cells(layer) for layer in layers])


def run_summary(run: RunReport) -> str:
    """The whole run on a screen, however many layers it has: their kinds, the worst of them, and totals."""
    parts = [_kinds(run), _worst(run)] if run.layers else []
    return "\n\n".join([*parts, printable(_totals(run))])


def _kinds(run: RunReport) -> str:
    """A line for each kind of layer."""
    kinds, others = largest_kinds(kinds_of_layers(run))
    header = ["kind of layer", "layers", "zeros", "mean error plain", "mean error", "worst error"]
    text = _without_empty(header, [_kind_cells(kind) for kind in kinds])
    return f"{text}\n... and {others} more kinds" if others else text


def _worst(run: RunReport) -> str:
    """The layers that lost most."""
    header = ["worst layers", "shape", "zeros", "error plain", "error"]
    return _without_empty(
        header,
        [
            [layer.name, _shape(layer), _share(layer.sparsity), _error(layer.error_before), _error(layer.error_after)]
            for layer in worst_layers(run)
        ],
    )


def _totals(run: RunReport) -> str:
    recipe = f"{run.method} {run.target}" + (" with induction" if run.induction else ", plain")
    lines = [
        f"{run.task}: {', '.join([recipe, *run.steps])}",
        f"layers: {len(run.layers)} in {len(run.blocks)} blocks, {run.parameters:,} parameters in the model",
    ]
    if changed := run.base.get("adapter_of"):
        lines.insert(1, f"merged adapter {run.base.get('name')} into {changed}")
    if run.task == "prune":
        whole = "" if run.model_sparsity is None else f", {run.model_sparsity:.2%} of the whole model's"
        lines.append(f"sparsity: {run.sparsity:.2%} of the pruned layers' weights are zero{whole}")
        if run.dense_in_words:
            lines.append(f"dense: {run.dense_in_words} of the model's weights")
    if fallen := Counter(layer.fallback for layer in run.layers if layer.fallback):
        ways = ", ".join(f"{count} with {way}" for way, count in fallen.most_common())
        lines.append(f"layers that could not be stored as the recipe has them: {ways}")
    lines.append(f"calibration: {run.calibration_windows} windows, {run.calibration_tokens:,} tokens")
    if run.induction:
        counts = Counter(block.choice for block in run.blocks)
        chosen = ", ".join(f"{counts[choice]} {choice}" for choice in reversed(CHOICES) if counts[choice])
        lines.append(f"blocks by what held-out windows chose: {chosen}")
    if run.loss_reduction is not None:
        lines.append(f"held-out loss at each block: {run.loss_reduction:.1%} lower with induction, on average")
    if run.recovery is not None:
        lines.append(_recovery(run.recovery))
    if run.perplexity is not None:
        dense, now = run.perplexity
        lines.append(f"perplexity on a little calibration text: {dense:,.4g} dense, {now:,.4g} now")
    return "\n".join([*lines, f"time: {run.seconds:.1f} s"])


def _recovery(done: RecoveryReport) -> str:
    if done.loss_before is None or done.loss_after is None:
        return "recovery: off, for want of memory"
    tokens = f"{done.tokens:,} tokens" if done.tokens > done.windows else f"{done.windows:,} windows"
    early = {"": "", "time": ", ended by its time limit", "NaN": ", ended by a loss that was not finite"}[done.ended]
    return (
        f"recovery: held-out distance from the dense model {done.loss_before:.4g} before, {done.loss_after:.4g} "
        f"after {done.steps} steps over {tokens} in {done.seconds:.1f} s ({done.memory}){early}"
    )


def _cells(layer: LayerReport) -> list[str]:
    return [
        layer.name,
        _shape(layer),
        layer.pattern or f"{layer.target_sparsity:.2%}",
        _share(layer.sparsity),
        _error(layer.error_before),
        _error(layer.error_after),
        "-" if layer.scale_min is None else f"{layer.scale_min:.2f} .. {layer.scale_max:.2f}",
        "yes" if layer.absorbed else "-",
    ]


def _kind_cells(kind: KindOfLayer) -> list[str]:
    errors = [kind.mean_error_before, kind.mean_error, kind.worst_error]
    return [kind.name, str(kind.count), _share(kind.sparsity), *map(_error, errors)]


def _without_empty(header: list[str], rows: list[list[str]]) -> str:
    """A table without the columns that a run of its kind leaves empty."""
    filled = [column for column in range(len(header)) if any(row[column] != "-" for row in rows)]
    return format_table([header[column] for column in filled], [[row[column] for column in filled] for row in rows])


def _shape(layer: LayerReport) -> str:
    return "x".join(map(str, layer.shape))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
