"""What a report keeps of a recovery of the whole model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RecoveryReport:
    """Training of the whole pruned model towards the dense model's answers.

    Args:
        windows, tokens: that were used, held-out ones among them; where a model answers once for a window, tokens
            are answers.
        held_out: windows of these that nothing was trained on.
        epochs: passes over the others that were asked for.
        steps: that were done.
        trains: "weights", "scales" or "norms".
        loss_before, loss_after: mean distance from the dense model's answers on the held-out windows (KL per token
            for logits, else relative squared error); None where memory was too short for any recovery.
        seconds: wall time.
        memory: how it fitted into memory, in words; "off" where it did not.
        ended: why it stopped early, "time" or "NaN"; "" where it did not.
        run: what tells whether a later recovery asks for the same; "" within a run.
        drawn: full windows of the calibration data that this and earlier recoveries of the model asked for.
    """

    windows: int
    tokens: int
    held_out: int
    epochs: int
    steps: int
    trains: str
    loss_before: float | None
    loss_after: float | None
    seconds: float
    memory: str
    ended: str = ""
    run: str = ""
    drawn: int = 0
