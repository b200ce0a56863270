"""What a run will cost where that is more than anybody expects: said before it starts."""

from collections.abc import Sequence

from torch import Tensor

from optimum_si.config.si_config import SIConfig
from optimum_si.warnings import warn

from .plan import Plan


#: Passes over the calibration data, and gigabytes of activations, beyond which a line is worth its place. ``best`` on
#: the largest data that anybody uses has about sixty passes.
PASSES, GIGABYTES = 300, 16
#: Passes that an epoch is: forwards and backwards, with what is held out.
_OF_EPOCH = 3


def warn_of_costs(plan: Plan, examples: Sequence[dict[str, Tensor]]) -> None:
    """Warn of a recipe that is allowed and takes very long, or very much memory.

    Args:
        plan: of the run.
        examples: its calibration examples.
    """
    config = plan.config
    passes = _passes(config)
    longest = max(passes, key=lambda name: passes[name])
    if passes[longest] > PASSES:
        warn(
            f"{longest} makes this run about {sum(passes.values()):,} passes over its "
            f"{len(examples):,} calibration windows, where the presets take 15 to 60."
        )
    tokens = sum(example["input_ids"].numel() for example in examples if "input_ids" in example)
    width = int(getattr(plan.model.config.get_text_config(), "hidden_size", 0) or 0)
    gigabytes = tokens * width * 4 * 2 / 1e9  # fp32, in both models
    if gigabytes > GIGABYTES:
        warn(
            f"calibration.num_samples={config.calibration.num_samples:,} and calibration.sequence_length="
            f"{config.calibration.sequence_length:,} are {tokens:,} tokens, whose hidden states alone take about "
            f"{gigabytes:,.0f} GB of memory: 128 windows of 2048 are what papers use."
        )


def _passes(config: SIConfig) -> dict[str, int]:
    """Passes over the calibration windows, by the option that asks for them."""
    found = {"refine_epochs": _OF_EPOCH * config.refine_epochs}
    if config.induction is not None:
        found["induction.epochs"] = _OF_EPOCH * config.induction.epochs
    if config.recovery is not None:
        windows = config.recovery.num_samples or config.calibration.num_samples
        share = windows / max(config.calibration.num_samples, 1)
        found["recovery.epochs"] = round(_OF_EPOCH * config.recovery.epochs * share)
    return found
