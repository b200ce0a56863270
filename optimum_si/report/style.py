"""How pictures look: one small palette, quiet axes, text that can be read on a card."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optimum_si.errors import PictureError


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colors by their role; the page gives each role another one in the dark. No two are the same.
INK, QUIET, GRID = "#1f2733", "#5b6675", "#e3e7ec"
PLAIN, CHOSEN, CHOSEN_PALE = "#8b97a6", "#0d7a6f", "#b5dcd5"
ROLES = {"ink": INK, "quiet": QUIET, "grid": GRID, "plain": PLAIN, "chosen": CHOSEN, "chosen-pale": CHOSEN_PALE}

#: Inches of every picture: text of 9.5 points is then as large on a card as the text beside it.
WIDTH, HEIGHT = 4.4, 3.4


def require_matplotlib() -> None:
    """Raise :class:`PictureError` where matplotlib, which comes with the extra ``report``, is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise PictureError('pictures need matplotlib: pip install "optimum-si[report]".') from error


@contextmanager
def styled(**settings: Any) -> Iterator[None]:
    """Draw and save with our fonts; the user's settings are back afterwards."""
    import matplotlib

    # Matplotlib's types allow no dict that is built from others.
    ours: Any = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.5,
        "text.color": INK,
        "axes.labelcolor": QUIET,
        "axes.unicode_minus": True,
        "text.parse_math": False,
        "text.usetex": False,
        **settings,
    }
    with matplotlib.rc_context(ours):
        yield


def new_figure() -> "Figure":
    """An empty figure of the common size."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, HEIGHT), layout="constrained", facecolor="none")


def quiet(axes: "Axes") -> None:
    """Leave of the frame only the base line, and faint lines to read values by."""
    axes.set_facecolor("none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(which="both", colors=QUIET, length=0, pad=5)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def legend(axes: "Axes") -> None:
    """Names of what is drawn, above the axes and flush left with them."""
    entries, _ = axes.get_legend_handles_labels()
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=max(len(entries), 1),
        frameon=False,
        borderaxespad=0.3,
        borderpad=0.1,
        handlelength=1.3,
        columnspacing=1.4,
        handletextpad=0.5,
    )
