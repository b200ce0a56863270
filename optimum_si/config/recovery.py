"""The group of a recipe that says how the whole model recovers after its last block was pruned."""

from .fields import Configuration, configuration, option
from .option_types import MOST_EPOCHS, MOST_WINDOWS, choice, integer, number, optional


#: What recovery trains, from the most to the least.
TRAINS = ("weights", "scales", "norms")


@configuration
class RecoveryConfig(Configuration):
    """How the pruned model is trained as a whole towards what the dense model answers, masks fixed.

    Raises:
        ConfigurationError: on an unknown name or a value out of range.
    """

    GROUP = "recovery"
    FLAG_PREFIX = "recovery"

    epochs: int = option(
        default=1,
        type=integer(minimum=1, maximum=MOST_EPOCHS),
        flag=True,
        help="train the whole model towards the dense one's answers afterwards: passes over the windows",
        detail="passes over the windows; one over many windows does more than several over few.",
    )
    num_samples: int = option(
        default=72,
        type=integer(minimum=0, maximum=MOST_WINDOWS),
        flag=True,
        help="windows of the calibration data that no fit has seen",
        detail="windows drawn from the calibration data that nothing else of the run has seen; 0, and tokenized data, "
        "use the calibration windows themselves.",
    )
    trains: str = option(
        default="weights",
        type=choice(TRAINS),
        flag=True,
        help="what is trained",
        detail='`"weights"`: kept weights, norms and biases; `"scales"`: norms, biases and a factor for each output '
        'row of a pruned layer; `"norms"`: norms and biases alone, which is all that weights on the grid of a '
        "`quantization` leave.",
    )
    learning_rate: float = option(
        default=3e-4,
        type=number(above=0, maximum=1),
        flag=True,
        help="of the weights",
        detail="Adam's, after a short warmup, decayed to zero along a cosine; three times that for norms, biases and "
        "factors.",
    )
    batch_size: int = option(
        default=1,
        type=integer(minimum=1, maximum=MOST_WINDOWS),
        detail="windows of a step; of texts shorter than a window, as many as hold their tokens.",
    )
    hidden_weight: float = option(
        default=0.0,
        type=number(minimum=0, maximum=1e6),
        detail="weight of the relative squared error of the last hidden state beside the divergence of the answers.",
    )
    minutes: float | None = option(
        default=None,
        type=optional(number(above=0, maximum=1e6)),
        flag=True,
        help="stop after so many minutes",
        detail="time limit, within which the learning rate falls to zero; None is none. What it reaches depends on "
        "the machine.",
        none="no limit",
    )
