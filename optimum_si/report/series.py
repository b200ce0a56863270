"""What pictures show of a run: one value a layer, or one a block where layers are too many to tell apart."""

from dataclasses import dataclass

from .records import LayerReport, RunReport


#: Layers up to which each is shown by itself.
MAX_GROUPS = 48


@dataclass(frozen=True)
class LayerGroup:
    """What one position on the horizontal axis stands for: a layer, or all layers of a block.

    Args:
        label: index of the block in the model.
        starts_block: whether the group is the first of its block.
        layers: at least one.
    """

    label: str
    starts_block: bool
    layers: list[LayerReport]

    @property
    def sparsity(self) -> float | None:
        """Fraction of zeros in its weights; None where nothing was pruned."""
        known = [(layer.sparsity, layer.num_weights) for layer in self.layers if layer.sparsity is not None]
        total = sum(num_weights for _, num_weights in known)
        return sum(sparsity * num_weights for sparsity, num_weights in known) / total if total else None

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


def layer_groups(run: RunReport) -> list[LayerGroup]:
    """Groups in forward order: layers, or blocks where there are more than ``MAX_GROUPS`` layers."""
    blocks = [(str(index), block.layers) for index, block in enumerate(run.blocks) if block.layers]
    if len(run.layers) > MAX_GROUPS:
        return [LayerGroup(label, True, layers) for label, layers in blocks]
    return [LayerGroup(label, layer is layers[0], [layer]) for label, layers in blocks for layer in layers]


@dataclass(frozen=True)
class ScoreHistogram:
    """Scores of a whole model, over the bins that all its blocks share.

    Args:
        edges: log10 of the relative score, one more than there are bins.
        before, after: fraction of the weights in each bin; ``after`` is None where every block is pruned plainly.
        lowest, highest: of all blocks, what changed in each bin; empty where ``after`` is None.
    """

    edges: list[float]
    before: list[float]
    after: list[float] | None
    lowest: list[float]
    highest: list[float]


def score_histogram(run: RunReport) -> ScoreHistogram | None:
    """The histograms of all blocks as one, each block by its size; None for a report that has none."""
    blocks = [block for block in run.blocks if block.importance is not None and block.layers]
    if not blocks:
        return None
    histograms = [block.importance for block in blocks if block.importance is not None]
    low, high, num_bins = histograms[0].low, histograms[0].high, len(histograms[0].before)
    step = (high - low) / num_bins
    edges = [low + step * index for index in range(num_bins + 1)]
    sizes = [sum(layer.num_weights for layer in block.layers) for block in blocks]
    before = [histogram.before for histogram in histograms]
    after = [histogram.after or histogram.before for histogram in histograms]
    if before == after:
        return ScoreHistogram(edges, _weighted(before, sizes), None, [], [])
    changes = [[new - old for new, old in zip(*pair, strict=True)] for pair in zip(after, before, strict=True)]
    by_bin = list(zip(*changes, strict=True))
    lowest, highest = [min(values) for values in by_bin], [max(values) for values in by_bin]
    return ScoreHistogram(edges, _weighted(before, sizes), _weighted(after, sizes), lowest, highest)


def _weighted(rows: list[list[float]], sizes: list[int]) -> list[float]:
    """The mean of rows, each as often as its size says."""
    return [
        sum(value * size for value, size in zip(column, sizes, strict=True)) / sum(sizes)
        for column in zip(*rows, strict=True)
    ]
