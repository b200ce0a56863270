"""The pictures: importance, layers, blocks, singular values and scales; None where one has nothing to show."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .records import RunReport
from .series import LayerGroup, layer_groups, score_histogram
from .style import CHOSEN, CHOSEN_PALE, INK, PLAIN, QUIET, legend, new_figure, quiet


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Values of s that an axis names: where they are far apart, and where they are close.
_WIDE_TICKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16)
_NARROW_TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.4, 1.6, 1.8, 2)
#: Labels of blocks that fit the width.
_MAX_TICKS = 12
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def importance(run: RunReport) -> "Figure | None":
    """How scores are spread before and after induction, and what changed."""
    values = score_histogram(run)
    if values is None:
        return None
    changed = values.after is not None
    figure = new_figure()
    rows = _panels(figure, [3, 2] if changed else [1])
    axes = rows[0]
    edges = [10**edge for edge in values.edges]
    axes.stairs(_percent(values.before), edges, fill=True, color=PLAIN, alpha=0.45, label="before induction")
    if values.after is not None:
        axes.stairs(_percent(values.after), edges, color=CHOSEN, linewidth=1.8, label="after")
    axes.set_ylabel("share of weights")
    if changed:
        legend(axes)
        below = rows[1]
        lowest, highest = _percent(values.lowest), _percent(values.highest)
        mean = [after - before for after, before in zip(values.after or [], values.before, strict=True)]
        if len(run.blocks) > 1:
            below.stairs(highest, edges, baseline=lowest, fill=True, color=CHOSEN_PALE, label="range of the blocks")
        below.stairs(_percent(mean), edges, baseline=None, color=CHOSEN, linewidth=1.8, label="whole model")
        below.set_ylim(1.15 * min(lowest), 1.15 * max(highest))
        below.axhline(0, color=QUIET, linewidth=0.8)
        below.set_ylabel("change (points)")
        legend(below)
    for row in rows:
        quiet(row)
        row.set_xscale("log")
    axes.yaxis.set_major_formatter(_percentages)
    rows[-1].set_xlabel("score relative to the mean of its row (log scale)")
    axes.set_xlim(*_filled(edges, values.before, values.after or values.before))
    rows[-1].xaxis.set_major_formatter(_decade)
    rows[-1].minorticks_off()
    return figure


def layers(run: RunReport) -> "Figure | None":
    """Relative output error and sparsity, layer by layer, or block by block where layers are many."""
    groups = layer_groups(run)
    if not groups:
        return None
    pruned = any(group.sparsity is not None for group in groups)
    figure = new_figure()
    rows = _panels(figure, [3, 1] if pruned else [1])
    axes = rows[0]
    _pairs(axes, [group.error_before for group in groups], [group.error_after for group in groups])
    axes.set_ylabel("output error")
    axes.yaxis.set_major_formatter(_percentages_of_one)
    axes.set_ylim(bottom=0, top=1.12 * axes.get_ylim()[1])
    if pruned:
        below = rows[1]
        sparsities = [group.sparsity or 0 for group in groups]
        below.bar(range(len(groups)), sparsities, width=0.72, color=CHOSEN_PALE)
        below.set_ylim(0, 1)
        below.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
        below.set_ylabel("zeros")
    for row in rows:
        quiet(row)
    _mark_blocks(rows[-1], groups)
    return figure


def blocks(run: RunReport) -> "Figure | None":
    """What each block costs on held-out windows, with the plain method and as chosen."""
    known = [
        (str(index), block.loss_before, block.loss_after)
        for index, block in enumerate(run.blocks)
        if block.loss_before is not None and block.loss_after is not None
    ]
    if not known:
        return None
    labels, before, after = map(list, zip(*known, strict=True))
    figure = new_figure()
    axes = figure.subplots()
    axes.bar(range(len(known)), before, width=0.72, color=PLAIN, alpha=0.45, label="plain method")
    axes.bar(range(len(known)), after, width=0.36, color=CHOSEN, label="as chosen")
    axes.set_ylabel("held-out loss")
    axes.set_xlim(-0.7, max(len(known), 4) - 0.3)
    quiet(axes)
    legend(axes)
    _name_ticks(axes, range(len(known)), labels)
    return figure


def singular_values(run: RunReport) -> "Figure | None":
    """Singular values of one layer, dense and pruned."""
    values = run.spectrum
    if values is None:
        return None
    figure = new_figure()
    axes = figure.subplots()
    axes.fill_between(values.positions, values.dense, color=PLAIN, alpha=0.25, linewidth=0)
    axes.plot(values.positions, values.dense, color=PLAIN, linewidth=1.8, label="dense")
    axes.plot(values.positions, values.pruned, color=CHOSEN, linewidth=1.8, label="pruned")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("singular value")
    axes.set_xlabel("largest to smallest")
    axes.margins(x=0.01)
    quiet(axes)
    legend(axes)
    return figure


def scales(run: RunReport) -> "Figure | None":
    """The learned s of each layer: its range, where four fifths of it lie, and its median."""
    from matplotlib.ticker import FixedLocator, NullLocator

    groups = layer_groups(run)
    known = [(position, group.scales) for position, group in enumerate(groups) if group.scales is not None]
    if not known:
        return None
    positions = [position for position, _ in known]
    low, p10, median, p90, high = zip(*(values for _, values in known if values is not None), strict=True)
    figure = new_figure()
    axes = figure.subplots()
    axes.axhline(1, color=QUIET, linewidth=0.8)
    axes.vlines(positions, low, high, color=PLAIN, linewidth=1.2, label="lowest to highest")
    axes.vlines(positions, p10, p90, color=CHOSEN, linewidth=4.5, label="middle 80%")
    axes.scatter(positions, median, s=16, color=INK, zorder=3, label="median")
    axes.set_yscale("log", base=2)
    bottom, top = min(*low, 0.9) / 1.06, max(*high, 1.1) * 1.06
    axes.set_ylim(bottom, top)
    axes.yaxis.set_major_locator(FixedLocator(_WIDE_TICKS if top / bottom > 4 else _NARROW_TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("s (log scale)")
    quiet(axes)
    legend(axes)
    _mark_blocks(axes, groups)
    return figure


def _panels(figure: "Figure", heights: list[int]) -> "list[Axes]":
    """Axes one below the other, with one horizontal axis."""
    panels = figure.subplots(len(heights), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    figure.align_ylabels(panels)
    return list(panels)


def _filled(edges: list[float], *histograms: list[float]) -> tuple[float, float]:
    """The edges between which bins hold more than a trace."""
    filled = [index for index, fractions in enumerate(zip(*histograms, strict=True)) if max(fractions) > 5e-4]
    return (edges[filled[0]], edges[filled[-1] + 1]) if filled else (edges[0], edges[-1])


def _pairs(axes: "Axes", before: Sequence[float | None], after: Sequence[float]) -> None:
    """A dot for the plain method and one for what was chosen at each position, and the way between them."""
    positions = range(len(after))
    paired = [(x, old, new) for x, old, new in zip(positions, before, after, strict=True) if old is not None]
    if paired:
        x, old, new = zip(*paired, strict=True)
        axes.vlines(x, old, new, color=CHOSEN_PALE, linewidth=3)
        axes.scatter(x, old, s=26, facecolor="none", edgecolor=PLAIN, linewidth=1.5, label="plain method")
    axes.scatter(positions, after, s=20, color=CHOSEN, zorder=3, label="as chosen" if paired else "pruned")
    legend(axes)


def _mark_blocks(axes: "Axes", groups: list[LayerGroup]) -> None:
    """Label the blocks, and draw a line where each starts."""
    starts = [position for position, group in enumerate(groups) if group.starts_block]
    single = len(starts) == len(groups)
    centers = [
        position if single else (position + after - 1) / 2
        for position, after in zip(starts, [*starts[1:], len(groups)], strict=True)
    ]
    _name_ticks(axes, centers, [groups[position].label for position in starts])
    axes.set_xlim(-0.8, len(groups) - 0.2)
    if not single:
        for shared in axes.figure.axes:
            for start in starts[1:]:
                shared.axvline(start - 0.5, color=QUIET, linewidth=0.6, linestyle=(0, (1, 3)), zorder=0)


def _name_ticks(axes: "Axes", positions: Sequence[float], labels: list[str]) -> None:
    every = -(-len(labels) // _MAX_TICKS)
    axes.set_xticks(positions[::every], labels[::every])
    axes.set_xlabel("block")


def _decade(value: float, _: float) -> str:
    """0.01 and above as it is, 0.001 as a power of ten."""
    return f"{value:g}" if value > 0.005 else "10" + f"{math.log10(value):.0f}".translate(_SUPERSCRIPTS)


def _percent(fractions: list[float]) -> list[float]:
    return [100 * fraction for fraction in fractions]


def _percentages(value: float, _: float) -> str:
    return f"{value:g}%"


def _percentages_of_one(value: float, _: float) -> str:
    return f"{100 * value:.3g}%"
