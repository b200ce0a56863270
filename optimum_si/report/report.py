"""What a run did, layer by layer: numbers, a table, and one small JSON file beside the weights."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from optimum_si.errors import CheckpointError
from optimum_si.version import __version__

from .table import format_table


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
        scale_p10, scale_p90: what a tenth of s is below and above; None also in reports of earlier versions.
        pattern: "N:M" where the layer keeps another N than the run's pattern; else None.
        share, damping: of its fit, where layers were fitted one after the other: how far the dense model's own output
            was its target, and the share of the mean Hessian diagonal that was added.
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
    scale_p10: float | None = None
    scale_p90: float | None = None
    pattern: str | None = None
    share: float | None = None
    damping: float | None = None


@dataclass(frozen=True)
class Importance:
    """How a block's scores are spread, before and after induction (the paper's Figure 1).

    A score counts relative to the mean of its row, or of its layer where the whole layer is ranked together.

    Args:
        low, high: log10 of the lowest and the highest relative score that is told apart; the first and the last bin
            hold what lies beyond.
        before: share of the weights in each of equally wide bins, with the plain method's scores. Weights whose score
            is zero are in none.
        after: the same with the scores that the block was pruned by; None where those are the plain method's.
    """

    low: float
    high: float
    before: list[float]
    after: list[float] | None


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one layer, at up to 64 evenly spaced positions.

    Args:
        layer: module name.
        positions: 0 is the largest singular value.
        dense, pruned: at these positions, before and after the run. Absorbed scales are left out of the pruned
            weights: they rescale what the layer computes with, and not what was lost.
    """

    layer: str
    positions: list[int]
    dense: list[float]
    pruned: list[float]


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
        importance: how its scores are spread; None where nothing was scored, and in reports of earlier versions.
        refined: relative squared error of the block's output on held-out windows before and after refinement, of
            weights fitted without those windows where layers are fitted in sequence; None in a run without it.
    """

    name: str
    choice: str
    loss_before: float | None
    loss_after: float | None
    seconds: float
    layers: list[LayerReport]
    importance: Importance | None = None
    refined: tuple[float, float] | None = None


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
        base: the model that was pruned, in words that may be published (:func:`optimum_si.hub.base_model.base_of`).
        steps: what was done beside the method and induction, in words (:attr:`optimum_si.SIConfig.steps`).
        dataset: name of the calibration data that may be published; None where it was given in Python.
        architecture: the model's class in transformers; None for a class from elsewhere.
        spectrum: singular values of the smallest layer in the middle block; None where that one is too large for
            them to be cheap, where nothing was pruned, and in reports of earlier versions.
        transformations: those that the model went through, in this run or in the `induce` before it.
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
    dataset: str | None = None
    version: str = __version__
    architecture: str | None = None
    steps: list[str] = field(default_factory=list)
    spectrum: Spectrum | None = None
    transformations: list[str] = field(default_factory=list)

    @property
    def layers(self) -> list[LayerReport]:
        """All layers, in forward order."""
        return [layer for block in self.blocks for layer in block.layers]

    @property
    def sparsity(self) -> float:
        """Measured share of zeros in the pruned layers."""
        weights = sum(layer.shape[0] * layer.shape[1] for layer in self.layers)
        return self.zeros / weights if weights else 0.0

    @property
    def closed(self) -> float | None:
        """Share by which induction lowers the sum of held-out losses at each block, those before it pruned as chosen.

        None without induction. A plain model is not measured: what it loses more adds up from block to block.
        """
        pairs = [(block.loss_before, block.loss_after) for block in self.blocks]
        known = [(before, after) for before, after in pairs if before is not None and after is not None]
        total = sum(before for before, _ in known)
        return 1 - sum(after for _, after in known) / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with ``sparsity`` added."""
        return {**asdict(self), "sparsity": self.sparsity}

    def save(self, directory: str | Path) -> None:
        """Write ``si_report.json``."""
        (Path(directory) / REPORT_NAME).write_text(_json(self.to_dict()), encoding="utf-8")

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
            # What earlier versions wrote in place of the steps.
            fit = values.pop("reconstruction", "none")
            values.setdefault("steps", [] if fit == "none" else [f"{fit} reconstruction"])
            blocks = [_block(entry) for entry in values.pop("blocks")]
            spectrum = values.pop("spectrum", None)
            return cls(**values, blocks=blocks, spectrum=None if spectrum is None else Spectrum(**spectrum))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{str(path)!r} cannot be read by optimum-si {__version__} ({error}): it is damaged, or was written "
                "by a newer version. Upgrade, or run `optimum-cli si prune` again."
            ) from error

    def table(self) -> str:
        """A line for each layer, as text."""
        header = ["layer", "shape", "target", "zeros", "error plain", "error now", "s", "absorbed"]
        rows = [
            [
                layer.name,
                "x".join(map(str, layer.shape)),
                layer.pattern or f"{layer.target_sparsity:.2%}",
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
        name = ", ".join([name, *self.steps])
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
        if self.closed is not None:
            lines.insert(-1, f"held-out loss at each block: {self.closed:.1%} lower with induction, on average")
        return "\n".join(lines)


def _json(values: dict[str, Any]) -> str:
    """Indented, with the numbers of a list on one line: a histogram is as short as it is readable."""
    text = json.dumps(values, indent=1)
    return re.sub(r"\[\n[-+\d.eE,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n"


def _block(values: dict[str, Any]) -> BlockReport:
    if values["choice"] not in ("plain", "shift", "induced"):
        raise ValueError(f"choice {values['choice']!r}")
    importance = values.get("importance")
    layers = [_layer(entry) for entry in values["layers"]]
    return BlockReport(
        **{
            **values,
            "layers": layers,
            "importance": None if importance is None else Importance(**importance),
            "refined": None if values.get("refined") is None else tuple(values["refined"]),
        }
    )


def _layer(values: dict[str, Any]) -> LayerReport:
    return LayerReport(**{**values, "shape": tuple(values["shape"])})
