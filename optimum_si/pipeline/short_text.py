"""Calibration data that is too short for what the recipe fits on it."""

from optimum_si.algorithms.stage import Need
from optimum_si.linalg.damping import SAFE_DAMPING, TOKENS_PER_COLUMN
from optimum_si.warnings import warn

from .plan import Plan


def warn_of_short_text(plan: Plan, tokens: int) -> None:
    """Say once where layers have fewer tokens than their fits need, and what is done about it.

    Args:
        plan: of the run.
        tokens: that calibration gives every layer, padding left out.
    """
    if Need.GRAM not in plan.needs and not plan.config.fits_in_sequence:
        return
    widths = {view.name: view.shape[1] for views in plan.views for view in views.values()}
    short = [name for name, columns in widths.items() if tokens < TOKENS_PER_COLUMN * columns]
    if not short:
        return
    widest = max(short, key=widths.__getitem__)
    damping = plan.config.damping
    done = "the damping of 0 that was asked for is kept"
    if damping:
        done = f"they are fitted with damping={max(damping, SAFE_DAMPING):g}"
    warn(
        f"{tokens:,} calibration tokens are few for {len(short)} of {len(widths)} layers: {widest!r} has "
        f"{widths[widest]:,} columns and needs {TOKENS_PER_COLUMN * widths[widest]:,}; {done}. Give more text, with a "
        "larger num_samples or sequence_length, or use method='wanda' without reconstruction, which fits nothing."
    )
