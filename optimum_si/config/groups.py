"""The nested groups of a recipe: how scales are learned, and which calibration data a run sees."""

import math
from dataclasses import dataclass

from optimum_si.errors import ConfigurationError

from .validators import check_boolean, check_choice, check_integer, check_number


INITIALIZATIONS = ("auto", "ones", "activation", "robust")
OBJECTIVES = ("normalized", "mse")
SELECTIONS = ("model", "block")
SPECTRAL_NORMS = (1, 2, "inf")
#: Share of the calibration windows held out.
HELD_OUT = 0.125


@dataclass
class InductionConfig:
    """How channel scales and shifts are learned (paper, sections 3.1 and 3.2; Eq. 3-8).

    Args:
        epochs: passes over the calibration windows of each block; 0 keeps the initialization.
        learning_rate: Adam's, for log s, decayed to zero along a cosine.
        initialization: ``"ones"``; ``"activation"``, s = (mean square of the channel) ** 0.25; ``"robust"``, the
            paper's Eq. 5; or ``"auto"``, whichever of ones and activation starts with the lower held-out loss. All are
            normalized to geometric mean 1 and clamped.
        objective: ``"normalized"``, squared error of the block's output relative to each token's norm; or ``"mse"``,
            the paper's Eq. 7, which tokens of large norm dominate.
        selection: what decides, on held-out windows, between what was learned, half of it, the shift alone and the
            plain method: ``"model"``, the divergence of the whole model's output; or ``"block"``, the block's own.
        own_scales: beside the s that consumers of one activation share, each layer learns one of its own; only the
            shared one can be absorbed, both weigh the score. False is the paper's.
        max_scale: s stays within [1 / max_scale, max_scale].
        temperature: width T of the sigmoid through which the gradient passes the hard mask, in units of log score.
        spectral_weight: weight of the Spectral Norm Loss (Eq. 8) beside the reconstruction loss (Eq. 7); 0 leaves
            it out.
        spectral_p: Schatten norm of Eq. 8: 1 (nuclear), 2 (Frobenius) or "inf" (spectral).
        spectral_alpha: alpha of Eq. 8; None means 1 / (sum of the norms at the start).
        spectral_normalized: use ``||WS||_p / ||WS||_F`` in Eq. 8, which growing scales cannot drive without bound.
        shift: absorb the shift of Eq. 3 into the biases that pruned layers have (mean compensation, then learned).
        new_biases: also give a bias to layers without one, where the architecture's own config can declare it.
        validation_fraction: share of the calibration windows held out to choose the best epoch.
        absorb: fold s, rounded to powers of two, into the weights on both sides of each pair.

    Raises:
        ConfigurationError: on an unknown name or a value out of range.
    """

    epochs: int = 5
    learning_rate: float = 1e-2
    initialization: str = "auto"
    objective: str = "normalized"
    selection: str = "model"
    own_scales: bool = True
    max_scale: float = 4.0
    temperature: float = 0.03
    spectral_weight: float = 0.0
    spectral_p: int | str = "inf"
    spectral_alpha: float | None = None
    spectral_normalized: bool = False
    shift: bool = True
    new_biases: bool = False
    validation_fraction: float = HELD_OUT
    absorb: bool = True

    def __post_init__(self) -> None:
        if self.spectral_p == math.inf:
            self.spectral_p = "inf"
        check_integer("induction.epochs", self.epochs, minimum=0)
        check_number("induction.learning_rate", self.learning_rate, above=0)
        check_choice("induction.initialization", self.initialization, INITIALIZATIONS)
        check_choice("induction.objective", self.objective, OBJECTIVES)
        check_choice("induction.selection", self.selection, SELECTIONS)
        check_number("induction.max_scale", self.max_scale, above=1)
        check_number("induction.temperature", self.temperature, above=0)
        check_number("induction.spectral_weight", self.spectral_weight, minimum=0)
        check_choice("induction.spectral_p", self.spectral_p, SPECTRAL_NORMS)
        if self.spectral_alpha is not None:
            check_number("induction.spectral_alpha", self.spectral_alpha, above=0)
        check_number("induction.validation_fraction", self.validation_fraction, above=0, below=1)
        for name in ("own_scales", "spectral_normalized", "shift", "new_biases", "absorb"):
            check_boolean(f"induction.{name}", getattr(self, name))
        if self.new_biases and not self.shift:
            raise ConfigurationError(
                "induction.new_biases=True needs induction.shift=True: a new bias carries the shift."
            )


@dataclass
class CalibrationConfig:
    """Which calibration data a run sees.

    Args:
        num_samples: windows of text to draw; encoders get single documents that hold as many tokens.
        sequence_length: tokens of a window; cut to what the model accepts.
        batch_size: windows that pass through a block together, when statistics are taken and when scales are learned.
        seed: draws the windows.
        dataset: a Hub dataset name ("wikitext2" and "c4" mean the published splits), or a local file, folder or glob.
        dataset_config: configuration name of a Hub dataset.
        split: split of a Hub dataset; None means "train".
        column: text column; None finds "text", "content", ... by itself.

    Raises:
        ConfigurationError: on an unknown name or a value out of range.
    """

    num_samples: int = 128
    sequence_length: int = 2048
    batch_size: int = 8
    seed: int = 0
    dataset: str | None = None
    dataset_config: str | None = None
    split: str | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        check_integer("calibration.num_samples", self.num_samples, minimum=1)
        check_integer("calibration.sequence_length", self.sequence_length, minimum=2)
        check_integer("calibration.batch_size", self.batch_size, minimum=1)
        check_integer("calibration.seed", self.seed, minimum=0)
        for name in ("dataset", "dataset_config", "split", "column"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(f"calibration.{name}={value!r}: expected a string or None.")
