"""The nested groups of a recipe: how scales are learned, and which calibration data a run sees."""

import math

from optimum_si.errors import ConfigurationError

from .choices import INITIALIZATIONS, OBJECTIVES, SPECTRAL_NORMS
from .fields import Configuration, configuration, option
from .option_types import (
    MOST_EPOCHS,
    MOST_SEED,
    MOST_TOKENS,
    MOST_WINDOWS,
    boolean,
    choice,
    integer,
    number,
    optional,
    text,
)


#: Share of the calibration windows held out.
HELD_OUT = 0.125
#: What a command takes as a dataset.
DATASETS = (
    '"wikitext2", "c4", another Hub dataset, or local text, JSONL or Parquet files (a file, a folder or a quoted glob)'
)
#: What a run on any other model takes beside those.
OR_IMAGES = ", images of a model that reads them"
#: What a run on a causal language model takes beside those.
OR_OWN_TEXT = ', or "self": what the dense model writes'


@configuration
class InductionConfig(Configuration):
    """How channel scales and shifts are learned (paper, sections 3.1 and 3.2; Eq. 3-8).

    Raises:
        ConfigurationError: on an unknown name or a value out of range.
    """

    GROUP = "induction"

    epochs: int = option(
        default=5,
        type=integer(minimum=0, maximum=MOST_EPOCHS),
        flag=True,
        help="passes over the calibration data",
        detail="passes over the calibration windows of each block; 0 keeps the initialization.",
    )
    learning_rate: float = option(
        default=1e-2,
        type=number(above=0, maximum=10),
        flag=True,
        help="of the channel scales",
        detail="Adam's, for log s, decayed to zero along a cosine.",
    )
    initialization: str = option(
        default="auto",
        type=choice(INITIALIZATIONS),
        detail='`"ones"`; `"activation"`, s = (mean square of the channel) ** 0.25; `"robust"`, the paper\'s Eq. 5; '
        'or `"auto"`, whichever of ones and activation starts with the lower held-out loss. All are normalized to '
        "geometric mean 1 and clamped.",
    )
    objective: str = option(
        default="normalized",
        type=choice(OBJECTIVES),
        detail='`"normalized"`, squared error of the block\'s output relative to each token\'s norm; or `"mse"`, the '
        "paper's Eq. 7, which tokens of large norm dominate.",
    )
    own_scales: bool = option(
        default=True,
        type=boolean(),
        detail="beside the s that consumers of one activation share, each layer learns one of its own; only the "
        "shared one can be absorbed, both weigh the score. False is the paper's.",
    )
    max_scale: float = option(
        default=4.0, type=number(above=1, maximum=2.0**20), detail="s stays within [1 / max_scale, max_scale]."
    )
    temperature: float = option(
        default=0.03,
        type=number(above=0, maximum=1e3),
        detail="width T of the sigmoid through which the gradient passes the hard mask, in units of log score.",
    )
    spectral_weight: float = option(
        default=0.0,
        type=number(minimum=0, maximum=1e6),
        detail="weight of the Spectral Norm Loss (Eq. 8) beside the reconstruction loss (Eq. 7); 0 leaves it out.",
    )
    spectral_p: int | str = option(
        default="inf",
        type=choice(SPECTRAL_NORMS),
        detail='Schatten norm of Eq. 8: 1 (nuclear), 2 (Frobenius) or `"inf"` (spectral).',
    )
    spectral_alpha: float | None = option(
        default=None,
        type=optional(number(above=0, maximum=1e6)),
        detail="alpha of Eq. 8; None means 1 / (sum of the norms at the start).",
    )
    spectral_normalized: bool = option(
        default=False,
        type=boolean(),
        detail="use `||WS||_p / ||WS||_F` in Eq. 8, which growing scales cannot drive without bound.",
    )
    rescale: bool = option(
        default=True,
        type=boolean(),
        detail="also learn factors for the rows and columns of what is left of each layer, which end in its own "
        "weights; False leaves kept weights as the method does, as the paper. Fits that repair earlier layers do more "
        "than that, and take its place.",
    )
    shift: bool = option(
        default=True,
        type=boolean(),
        detail="absorb the shift of Eq. 3 into the biases that pruned layers have (mean compensation, then learned).",
    )
    new_biases: bool = option(
        default=False,
        type=boolean(),
        detail="also give a bias to layers without one, where the architecture's own config can declare it.",
    )
    validation_fraction: float = option(
        default=HELD_OUT,
        type=number(above=0, below=1),
        detail="share of the calibration windows held out to choose the best epoch.",
    )
    absorb: bool = option(
        default=True,
        type=boolean(),
        detail="fold s, rounded to powers of two, into the weights on both sides of each pair.",
    )

    def validate(self) -> None:
        """Check every option, and that new biases have a shift to carry."""
        if self.spectral_p == math.inf:
            self.spectral_p = "inf"
        super().validate()
        if self.new_biases and not self.shift:
            raise ConfigurationError(
                "induction.new_biases=True needs induction.shift=True: a new bias carries the shift."
            )


@configuration
class CalibrationConfig(Configuration):
    """Which calibration data a run sees.

    Raises:
        ConfigurationError: on an unknown name or a value out of range.
    """

    GROUP = "calibration"

    num_samples: int = option(
        default=128,
        type=integer(minimum=1, maximum=MOST_WINDOWS),
        flag=True,
        help="windows to draw, or examples to take",
        detail="windows of text to draw; encoders get single documents that hold as many tokens. Of tokenized data "
        "the first so many examples are taken, of images and sounds as many at random.",
    )
    sequence_length: int = option(
        default=2048,
        type=integer(minimum=2, maximum=MOST_TOKENS),
        flag=True,
        help="tokens of a window",
        detail="tokens of a window; cut to what the model accepts.",
    )
    batch_size: int = option(
        default=8,
        type=integer(minimum=1, maximum=MOST_WINDOWS),
        flag=True,
        help="windows computed together",
        detail="windows that pass through a block together, when statistics are taken and when scales are learned.",
    )
    min_expert_tokens: int = option(
        default=256,
        type=integer(minimum=0, maximum=MOST_TOKENS),
        flag=True,
        help="tokens that each expert of a mixture is calibrated on at least",
        detail="tokens that each expert of a mixture is calibrated on at least: one that fewer are sent to also reads "
        "tokens of its layer that go to others, evenly spread. 0 adds none.",
    )
    # The command line's --seed sets this one and the recipe's.
    seed: int = option(default=0, type=integer(minimum=0, maximum=MOST_SEED), flag=True, detail="draws the windows.")
    dataset: str | None = option(
        default=None,
        type=text("DATA"),
        flag=True,
        help=f"data that shows the model at work: {DATASETS}{OR_IMAGES}{OR_OWN_TEXT}",
        detail='a Hub dataset name (`"wikitext2"` and `"c4"` mean the published splits), a local file, folder or '
        'glob of texts or images, or `"self"`: text that the model writes itself, an instruct model through its chat '
        "template.",
        see="#calibration-data",
    )
    dataset_config: str | None = option(
        default=None,
        type=text("NAME"),
        flag=True,
        help="configuration of a Hub dataset",
        detail="configuration name of a Hub dataset.",
    )
    split: str | None = option(
        default=None,
        type=text("SPLIT"),
        flag=True,
        help="split of a Hub dataset",
        detail='split of a Hub dataset; None means "train".',
        none="train",
    )
    column: str | None = option(
        default=None,
        type=text("COLUMN"),
        flag=True,
        help="column of text, conversations, images or sounds",
        detail='column of text, conversations, images or sounds; None finds "text", "messages", "image", ... by '
        "itself.",
        none="found by itself",
    )
    target_column: str | None = option(
        default=None,
        type=text("COLUMN"),
        flag=True,
        help="column of what the decoder of an encoder-decoder writes",
        detail="column of texts that the decoder of an encoder-decoder model reads, such as summaries; None lets the "
        "dense model write them.",
        none="the model writes it",
    )
