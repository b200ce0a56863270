"""What was measured in a run: layers, blocks and the whole, as values that JSON can hold."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from optimum_si.version import __version__

from .recovery import RecoveryReport


#: What held-out windows choose between, from the least to the most.
CHOICES = ("plain", "shift", "induced")


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    """A pair that JSON holds as a list."""
    if values is None:
        return None
    first, second = values
    return first, second


@dataclass(frozen=True)
class LayerReport:
    """One pruned layer.

    Args:
        name: module name.
        shape: (d_out, d_in).
        target_sparsity: fraction of zeros asked for.
        sparsity: fraction of zeros measured; None where nothing was pruned (``induce``).
        error_before: relative squared error of the layer's output on calibration tokens with the plain method;
            None in a run without induction.
        error_after: the same for the weights and the bias that the run produced.
        scale_min, scale_median, scale_max: the learned s on the layer's input channels; None where none was learned.
        absorbed: whether that s went into the weights around the layer.
        scale_p10, scale_p90: what a tenth of s is below and above; None also in reports of earlier versions.
        pattern: "N:M" where the layer keeps another N than the run's pattern; else None.
        repair: in [0, 1], how far the dense model's own output was the target of the layer's fit; None where layers
            were not fitted one after the other.
        damping: fraction of the mean Hessian diagonal that was added to the diagonal in that fit; else None.
        fallback: what was done instead of what the recipe says, whose weights could not be stored; else None.
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
    repair: float | None = None
    damping: float | None = None
    fallback: str | None = None

    @property
    def num_weights(self) -> int:
        """Entries of its weight matrix."""
        return self.shape[0] * self.shape[1]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The layer that ``asdict`` gave ``values`` for."""
        return cls(**{**values, "shape": tuple(values["shape"])})


@dataclass(frozen=True)
class Importance:
    """How a block's scores are spread, before and after induction (the paper's Figure 1).

    A score counts relative to the mean of its row, or of its layer where the whole layer is ranked together.

    Args:
        low, high: log10 of the lowest and the highest relative score that is told apart; the first and the last bin
            hold what lies beyond.
        before: fraction of the weights in each of equally wide bins, with the plain method's scores. Weights whose
            score is zero are in none.
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
        layers: in forward order.
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

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The block that ``asdict`` gave ``values`` for.

        Raises:
            KeyError, TypeError, ValueError: when a field is missing, is of another type or holds an unknown choice.
        """
        if values["choice"] not in CHOICES:
            raise ValueError(f"choice {values['choice']!r}")
        importance, refined = values.get("importance"), values.get("refined")
        return cls(
            **{
                **values,
                "layers": [LayerReport.from_dict(entry) for entry in values["layers"]],
                "importance": None if importance is None else Importance(**importance),
                "refined": _pair(refined),
            }
        )


#: Of a model's weights, what a part that stays dense has at least to be named.
LEAST_SHARE = 0.0005


@dataclass
class RunReport:
    """A whole run.

    Args:
        task: "prune" or "induce".
        method, target: such as "wanda", "2:4".
        induction: whether induction was on.
        blocks: in forward order.
        parameters: of the whole model, tied ones once.
        zeros: number of zero weights in the pruned layers.
        all_zeros: number of zeros among all parameters of the model; None in reports of earlier versions.
        dense_parts: numbers of weights that stayed dense, by why.
        calibration_windows, calibration_tokens: data that was used, padding left out.
        seconds: wall time of the run, loading and saving aside.
        dense: names of weights that were seen and left dense.
        base: the model that was pruned, in words that may be published, and what it was merged into where it was an
            adapter (:func:`optimum_si.hub.base_model.base_of`).
        steps: what was done beside the method and induction, in words (:attr:`optimum_si.SIConfig.steps`).
        dataset: name of the calibration data that may be published; None where it was given in Python.
        architecture: the model's class in transformers; None for a class from elsewhere.
        spectrum: singular values of the smallest layer in the middle block; None where that one is too large for
            them to be cheap, where nothing was pruned, and in reports of earlier versions.
        transformations: those that the model went through, in this run or in the `induce` before it.
        perplexity: before and after the run, on a few hundred tokens of calibration text, held-out ones where there
            are: enough to see whether a model came apart; None where it was not measured.
        recovery: of the whole model after its last block; None in a run without it.
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
    perplexity: tuple[float, float] | None = None
    recovery: RecoveryReport | None = None
    all_zeros: int | None = None
    dense_parts: dict[str, int] = field(default_factory=dict)

    @property
    def model_sparsity(self) -> float | None:
        """Measured fraction of zeros among all weights of the model; None where they were not counted."""
        return None if self.all_zeros is None or not self.parameters else self.all_zeros / self.parameters

    @property
    def pruned_share(self) -> float | None:
        """Of all weights of the model, those in pruned layers; None where they were not counted."""
        if self.all_zeros is None or not self.parameters:
            return None
        return sum(layer.num_weights for layer in self.layers) / self.parameters

    @property
    def dense_in_words(self) -> str:
        """What stayed dense with its share of the model, the most first."""
        parts = [(why, count / max(self.parameters, 1)) for why, count in self.dense_parts.items()]
        return ", ".join(f"{why} {share:.1%}" for why, share in parts if share >= LEAST_SHARE)

    @property
    def layers(self) -> list[LayerReport]:
        """All layers, in forward order."""
        return [layer for block in self.blocks for layer in block.layers]

    @property
    def sparsity(self) -> float:
        """Measured fraction of zeros in the pruned layers."""
        num_weights = sum(layer.num_weights for layer in self.layers)
        return self.zeros / num_weights if num_weights else 0.0

    @property
    def loss_reduction(self) -> float | None:
        """Fraction by which induction lowers the held-out losses at each block in sum, those before it as chosen.

        None without induction. A plain model is not measured: what it loses more adds up from block to block.
        """
        pairs = [(block.loss_before, block.loss_after) for block in self.blocks]
        known = [(before, after) for before, after in pairs if before is not None and after is not None]
        total = sum(before for before, _ in known)
        return 1 - sum(after for _, after in known) / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with ``sparsity`` added."""
        return {**asdict(self), "sparsity": self.sparsity}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The run that :meth:`to_dict` gave ``values`` for.

        Raises:
            KeyError, TypeError, ValueError: when a field is missing, unknown or of another type.
        """
        if not isinstance(values, dict):
            raise TypeError("not an object")
        fields = dict(values)
        del fields["sparsity"]  # follows from the others
        spectrum, recovery = fields.get("spectrum"), fields.get("recovery")
        return cls(
            **{
                **fields,
                "blocks": [BlockReport.from_dict(entry) for entry in fields["blocks"]],
                "perplexity": _pair(fields.get("perplexity")),
                "spectrum": None if spectrum is None else Spectrum(**spectrum),
                "recovery": None if recovery is None else RecoveryReport(**recovery),
            }
        )
