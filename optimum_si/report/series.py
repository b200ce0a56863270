"""What pictures show of a report: one value a layer, or one a block where layers are too many to tell apart."""

from dataclasses import dataclass

from .report import LayerReport, Report


#: Layers up to which each has a place of its own in a picture.
MOST_PLACES = 48


@dataclass(frozen=True)
class Place:
    """One place on the horizontal axis: a layer, or all layers of a block.

    Args:
        label: number of the block.
        starts: True for the first place of a block.
        layers: at least one.
    """

    label: str
    starts: bool
    layers: list[LayerReport]

    @property
    def sparsity(self) -> float | None:
        """Share of zeros in its weights; None where nothing was pruned."""
        known = [(layer.sparsity, _size(layer)) for layer in self.layers if layer.sparsity is not None]
        total = sum(size for _, size in known)
        return sum(share * size for share, size in known) / total if total else None

    @property
    def error_before(self) -> float | None:
        """Mean relative output error of its layers with the plain method; None without induction."""
        known = [layer.error_before for layer in self.layers if layer.error_before is not None]
        return sum(known) / len(known) if known else None

    @property
    def error_after(self) -> float:
        """The same as the run left it."""
        return sum(layer.error_after for layer in self.layers) / len(self.layers)

    @property
    def scales(self) -> tuple[float, float, float, float, float] | None:
        """Lowest s, its 10 % quantile, median, 90 % quantile and highest; None where none was learned.

        The quantiles and the median of a block are means of its layers'; reports of earlier versions have no
        quantiles, and the median stands for them.
        """
        entries = [
            (
                layer.scale_min,
                layer.scale_median if layer.scale_p10 is None else layer.scale_p10,
                layer.scale_median,
                layer.scale_median if layer.scale_p90 is None else layer.scale_p90,
                layer.scale_max,
            )
            for layer in self.layers
        ]
        columns = [[value for value in column if value is not None] for column in zip(*entries, strict=True)]
        if not all(columns):
            return None
        low, p10, median, p90, high = columns
        return min(low), sum(p10) / len(p10), sum(median) / len(median), sum(p90) / len(p90), max(high)


def places(report: Report) -> list[Place]:
    """Places in forward order: layers, or blocks where there are more than ``MOST_PLACES`` layers."""
    blocks = [(str(number), block.layers) for number, block in enumerate(report.blocks) if block.layers]
    if len(report.layers) > MOST_PLACES:
        return [Place(label, True, layers) for label, layers in blocks]
    return [Place(label, not place, [layer]) for label, layers in blocks for place, layer in enumerate(layers)]


@dataclass(frozen=True)
class Spread:
    """Scores of a whole model, over the bins that all its blocks share.

    Args:
        edges: log10 of the relative score, one more than there are bins.
        before, after: share of the weights in each bin; ``after`` is None where every block is pruned plainly.
        lowest, highest: of all blocks, what changed in each bin; empty where ``after`` is None.
    """

    edges: list[float]
    before: list[float]
    after: list[float] | None
    lowest: list[float]
    highest: list[float]


def spread(report: Report) -> Spread | None:
    """The histograms of all blocks as one, each block by its size; None for a report that has none."""
    blocks = [block for block in report.blocks if block.importance is not None and block.layers]
    if not blocks:
        return None
    first = blocks[0].importance
    assert first is not None
    step = (first.high - first.low) / len(first.before)
    edges = [first.low + step * number for number in range(len(first.before) + 1)]
    sizes = [sum(_size(layer) for layer in block.layers) for block in blocks]
    before = [block.importance.before for block in blocks if block.importance is not None]
    after = [block.importance.after or block.importance.before for block in blocks if block.importance is not None]
    if before == after:
        return Spread(edges, _weighted(before, sizes), None, [], [])
    changes = [[new - old for new, old in zip(*pair, strict=True)] for pair in zip(after, before, strict=True)]
    by_bin = list(zip(*changes, strict=True))
    lowest, highest = [min(values) for values in by_bin], [max(values) for values in by_bin]
    return Spread(edges, _weighted(before, sizes), _weighted(after, sizes), lowest, highest)


def _weighted(rows: list[list[float]], sizes: list[int]) -> list[float]:
    return [
        sum(value * size for value, size in zip(column, sizes, strict=True)) / sum(sizes)
        for column in zip(*rows, strict=True)
    ]


def _size(layer: LayerReport) -> int:
    return layer.shape[0] * layer.shape[1]
