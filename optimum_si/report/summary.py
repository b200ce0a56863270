"""What a run did, as text that fits a screen."""

from collections import Counter
from collections.abc import Iterable

from .records import CHOICES, LayerReport, RunReport
from .table import format_table


def layer_table(layers: Iterable[LayerReport]) -> str:
    """A line for each layer."""
    header = ["layer", "shape", "target", "zeros", "error plain", "error now", "s", "absorbed"]
    return format_table(header, [_cells(layer) for layer in layers])


def run_summary(run: RunReport) -> str:
    """The whole run in a few lines."""
    recipe = f"{run.method} {run.target}" + (" with induction" if run.induction else ", plain")
    lines = [
        f"{run.task}: {', '.join([recipe, *run.steps])}",
        f"layers: {len(run.layers)} in {len(run.blocks)} blocks, {run.parameters:,} parameters in the model",
    ]
    if run.task == "prune":
        lines.append(f"sparsity: {run.sparsity:.2%} of the pruned layers' weights are zero")
    lines.append(f"calibration: {run.calibration_windows} windows, {run.calibration_tokens:,} tokens")
    if run.induction:
        counts = Counter(block.choice for block in run.blocks)
        chosen = ", ".join(f"{counts[choice]} {choice}" for choice in reversed(CHOICES) if counts[choice])
        lines.append(f"blocks by what held-out windows chose: {chosen}")
    if run.loss_reduction is not None:
        lines.append(f"held-out loss at each block: {run.loss_reduction:.1%} lower with induction, on average")
    return "\n".join([*lines, f"time: {run.seconds:.1f} s"])


def _cells(layer: LayerReport) -> list[str]:
    return [
        layer.name,
        "x".join(map(str, layer.shape)),
        layer.pattern or f"{layer.target_sparsity:.2%}",
        "-" if layer.sparsity is None else f"{layer.sparsity:.2%}",
        "-" if layer.error_before is None else f"{layer.error_before:.4f}",
        f"{layer.error_after:.4f}",
        "-" if layer.scale_min is None else f"{layer.scale_min:.2f} .. {layer.scale_max:.2f}",
        "yes" if layer.absorbed else "-",
    ]
