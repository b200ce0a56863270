"""Zeros shared out over layers: by outliers or by error curves, under an exact global count.

``by_outliers`` and ``by_errors`` say which fraction of each part is to go; ``whole_zeros`` turns that into counts
that add up to the budget.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor


#: Steps, of a granularity each, that one part takes at most to make counts add up, and how many parts may take any.
STEPS = 3
MOVABLE = 64

#: Shares of outliers closer together than this are the same: one outlier more is more than this in any real layer.
SAME = 1e-9


@dataclass(frozen=True)
class Part:
    """What one layer allows.

    Args:
        granularity: zeros that come and go together: one in every row, one in every N:M group, or a single one.
        lowest, highest: zeros at least and at most, multiples of the granularity.
    """

    granularity: int
    lowest: int
    highest: int


def by_outliers(ratios: Sequence[float], sizes: Sequence[int], target: float, width: float) -> list[float]:
    """Fraction of zeros of each part: the more outliers, the fewer (OWL, Yin et al. 2024, arXiv 2310.05175).

    Args:
        ratios: fraction of scores that are outliers, of each part.
        sizes: weights of each part.
        target: fraction of zeros over all parts, which the result has exactly.
        width: the part furthest from the mean is so far from ``target``.
    """
    mean = sum(ratio * size for ratio, size in zip(ratios, sizes, strict=True)) / sum(sizes)
    furthest = max(abs(ratio - mean) for ratio in ratios)
    if furthest < SAME:
        return [target] * len(ratios)
    return [target - width * (ratio - mean) / furthest for ratio in ratios]


def by_errors(
    levels: Sequence[float], curves: Sequence[Sequence[float]], sizes: Sequence[int], target: float
) -> list[float]:
    """Fraction of zeros of each part for the smallest sum of errors: all parts end at the same error per further zero.

    Args:
        levels: sparsities of zeros, ascending, at which errors are known; a part stays between the first and the last.
        curves: error of each part at each level. Only their lower convex hulls count.
        sizes: weights of each part.
        target: fraction of zeros over all parts, which the result has exactly.
    """
    segments = []
    for part, (curve, size) in enumerate(zip(curves, sizes, strict=True)):
        hull = _hull(levels, curve)
        for (start, low), (stop, high) in zip(hull, hull[1:], strict=False):
            segments.append(((high - low) / ((stop - start) * size), part, stop - start))
    sparsities = [levels[0]] * len(curves)
    left = (target - levels[0]) * sum(sizes)
    for _, part, length in sorted(segments):
        step = min(length, max(left, 0.0) / sizes[part])
        sparsities[part] += step
        left -= step * sizes[part]
    return sparsities


def whole_zeros(
    sparsities: Sequence[float], sizes: Sequence[int], parts: Sequence[Part], budget: int, fewer: bool = True
) -> list[int]:
    """Zeros of each part, whole grains of it, that add up to a budget.

    Exactly so where single weights can go; else as closely as up to ``STEPS`` grains more or fewer in some parts
    bring it, which is exact too unless parts are few and their grains have little in common.

    Args:
        sparsities: fraction of zeros wanted of each part.
        sizes: weights of each part.
        parts: what each allows.
        budget: zeros of all, between the sums of what parts allow.
        fewer: whether there may be fewer zeros than the budget where it cannot be met.
    """
    wanted = [sparsity * size for sparsity, size in zip(sparsities, sizes, strict=True)]
    zeros = [
        min(max(part.granularity * floor(want / part.granularity + 1e-9), part.lowest), part.highest)
        for want, part in zip(wanted, parts, strict=True)
    ]

    def missing(index: int) -> float:
        return (wanted[index] - zeros[index]) / parts[index].granularity

    def handed_out(step: int) -> bool:
        """One granularity more (or fewer) in each part, those first that miss most, as long as the budget lasts."""
        before, left = list(zeros), (budget - sum(zeros)) * step
        for index in sorted(range(len(parts)), key=missing, reverse=step > 0):
            part = parts[index]
            if part.granularity <= left and part.lowest <= zeros[index] + step * part.granularity <= part.highest:
                zeros[index] += step * part.granularity
                left -= part.granularity
        return zeros != before

    while handed_out(1) or handed_out(-1):
        pass
    order = sorted(range(len(parts)), key=missing, reverse=True)
    movable = order if len(order) <= MOVABLE else order[: MOVABLE // 2] + order[-MOVABLE // 2 :]
    for index, steps in _moves(budget - sum(zeros), [(at, parts[at], zeros[at]) for at in movable], fewer):
        zeros[index] += steps * parts[index].granularity
    return zeros


def _moves(rest: int, movable: Sequence[tuple[int, Part, int]], fewer: bool) -> Iterable[tuple[int, int]]:
    """Steps of parts (number, what it allows, its zeros) after which the least of ``rest`` is left."""
    # What one part gives up others may take, so that as much may be left over on the way.
    window = (STEPS + 1) * max((part.granularity for _, part, _ in movable), default=0)
    # What can be left over, and by which steps.
    reached: dict[int, tuple[tuple[int, int], ...]] = {rest: ()}
    for index, part, zeros in movable:
        if 0 in reached:
            break
        for left, path in list(reached.items()):
            for steps in sorted(range(-STEPS, STEPS + 1), key=abs):
                now = left - steps * part.granularity
                inside = part.lowest <= zeros + steps * part.granularity <= part.highest
                if inside and abs(now) <= window and now not in reached:
                    reached[now] = (*path, (index, steps))
    return reached[min(reached, key=lambda left: (not fewer and left > 0, abs(left)))]


def _hull(levels: Sequence[float], curve: Sequence[float]) -> list[tuple[float, float]]:
    """Corners of the greatest convex curve below the points."""
    corners: list[tuple[float, float]] = []
    for x, y in zip(levels, curve, strict=True):
        while len(corners) > 1:
            (x0, y0), (x1, y1) = corners[-2:]
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            corners.pop()
        corners.append((x, y))
    return corners
