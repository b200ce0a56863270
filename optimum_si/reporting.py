"""What a run did, layer by layer: numbers, a table, and one small JSON file beside the weights."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import CheckpointError
from .version import __version__


REPORT_NAME = "si_report.json"


@dataclass(frozen=True)
class LayerReport:
    """One pruned layer.

    Args:
        name: module name.
        shape: (d_out, d_in).
        target_sparsity: share of zeros asked for.
        sparsity: share of zeros measured; None where nothing was pruned (``induce``).
        error_before: relative squared error of the layer's output on calibration tokens with the plain method;
            None in a run without induction.
        error_after: the same for the weights and the bias that the run produced.
        scale_min, scale_median, scale_max: the learned s on the layer's input channels; None where none was learned.
        absorbed: whether that s went into the weights around the layer.
    """

    name: str
    shape: tuple[int, int]
    target_sparsity: float
    sparsity: float | None
    error_before: float | None
    error_after: float
    scale_min: float | None = None
    scale_median: float | None = None
    scale_max: float | None = None
    absorbed: bool = False


@dataclass(frozen=True)
class BlockReport:
    """One transformer block.

    Args:
        name: module name.
        choice: what held-out windows chose: "plain", "shift" (mean compensation only) or "induced".
        loss_before, loss_after: what choices are made by on held-out windows, with the plain method and as chosen:
            divergence of the model's output (KL for logits, else relative squared error), or with
            ``selection="block"`` the relative squared error of the block's; None in a run without induction.
        seconds: wall time.
        layers: its layers.
    """

    name: str
    choice: str
    loss_before: float | None
    loss_after: float | None
    seconds: float
    layers: list[LayerReport]


@dataclass
class Report:
    """A whole run.

    Args:
        task: "prune" or "induce".
        method, target: such as "wanda", "2:4".
        induction: whether induction was on.
        blocks: in forward order.
        parameters: of the whole model, tied ones once.
        zeros: zero weights among the pruned layers.
        calibration_windows, calibration_tokens: data that was used, padding left out.
        seconds: wall time of the run, loading and saving aside.
        dense: names of weights that were seen and left dense.
        base: the model that was pruned, in words that may be published (:func:`optimum_si.publishing.base.base_of`).
    """

    task: str
    method: str
    target: str
    induction: bool
    blocks: list[BlockReport] = field(default_factory=list)
    parameters: int = 0
    zeros: int = 0
    calibration_windows: int = 0
    calibration_tokens: int = 0
    seconds: float = 0.0
    dense: list[str] = field(default_factory=list)
    base: dict[str, Any] = field(default_factory=dict)
    version: str = __version__

    @property
    def layers(self) -> list[LayerReport]:
        """All layers, in forward order."""
        return [layer for block in self.blocks for layer in block.layers]

    @property
    def sparsity(self) -> float:
        """Measured share of zeros in the pruned layers."""
        weights = sum(layer.shape[0] * layer.shape[1] for layer in self.layers)
        return self.zeros / weights if weights else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with ``sparsity`` added."""
        return {**asdict(self), "sparsity": self.sparsity}

    def save(self, directory: str | Path) -> None:
        """Write ``si_report.json``."""
        (Path(directory) / REPORT_NAME).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> "Report":
        """Read ``si_report.json``.

        Raises:
            CheckpointError: when the directory has none, or it is damaged.
        """
        path = Path(directory) / REPORT_NAME
        if not path.is_file():
            raise CheckpointError(
                f"{str(directory)!r} holds no {REPORT_NAME}: give a directory that "
                "`optimum-cli si prune -o DIR` wrote."
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise TypeError("not an object")
            values.pop("sparsity")
            blocks = [
                BlockReport(**{**block, "layers": [_layer(entry) for entry in block["layers"]]})
                for block in values.pop("blocks")
            ]
            return cls(**values, blocks=blocks)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{str(path)!r} is damaged ({error}): run `optimum-cli si prune` again.") from error

    def table(self) -> str:
        """A line for each layer, as text."""
        header = ["layer", "shape", "target", "zeros", "error plain", "error now", "s", "absorbed"]
        rows = [
            [
                layer.name,
                "x".join(map(str, layer.shape)),
                f"{layer.target_sparsity:.2%}",
                "-" if layer.sparsity is None else f"{layer.sparsity:.2%}",
                "-" if layer.error_before is None else f"{layer.error_before:.4f}",
                f"{layer.error_after:.4f}",
                "-" if layer.scale_min is None else f"{layer.scale_min:.2f} .. {layer.scale_max:.2f}",
                "yes" if layer.absorbed else "-",
            ]
            for layer in self.layers
        ]
        return format_table(header, rows)

    def summary(self) -> str:
        """The whole run in a few lines."""
        name = f"{self.method} {self.target}" + (" with induction" if self.induction else ", plain")
        kept = {
            choice: sum(block.choice == choice for block in self.blocks) for choice in ("induced", "shift", "plain")
        }
        lines = [
            f"{self.task}: {name}",
            f"layers: {len(self.layers)} in {len(self.blocks)} blocks, {self.parameters:,} parameters in the model",
            f"calibration: {self.calibration_windows} windows, {self.calibration_tokens:,} tokens",
            f"time: {self.seconds:.1f} s",
        ]
        if self.task == "prune":
            lines.insert(2, f"sparsity: {self.sparsity:.2%} of the pruned layers' weights are zero")
        if self.induction:
            chosen = ", ".join(f"{count} {choice}" for choice, count in kept.items() if count)
            lines.insert(-1, f"blocks by what held-out windows chose: {chosen}")
        return "\n".join(lines)


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their longest entry; the first is flush left, numbers are flush right."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        first, *rest = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join([first, *rest]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def _layer(values: dict[str, Any]) -> LayerReport:
    return LayerReport(**{**values, "shape": tuple(values["shape"])})
