"""How scores and singular values are spread, in few enough numbers to be kept."""

import torch
from torch import Tensor


#: log10 of the relative scores between which bins lie, and how many there are.
LOW, HIGH, BINS = -6.0, 2.0, 64

#: Singular values that are kept of one matrix.
POSITIONS = 64

#: Steps, rows x columns x the shorter of both, up to which singular values of a matrix are taken: about ten seconds on
#: two cores. A 4096 x 1024 matrix is within it, a 4096 x 4096 one would take a minute and show nothing else.
AFFORDABLE = 2**34


def relative_histogram(score: Tensor, whole: bool) -> Tensor:
    """How log10 of each score, relative to the mean of its group, is spread over ``BINS`` bins.

    Args:
        score: [rows, columns], >= 0.
        whole: the group is the whole matrix; False: each row is one.

    Returns:
        fp64 [BINS], shares of all scores. Those beyond the bins are in the first or the last one, zeros in none.
    """
    score = score.double().nan_to_num()
    mean = score.mean() if whole else score.mean(dim=1, keepdim=True)
    relative = (score / mean)[score > 0]
    bins = ((relative.log10() - LOW) * (BINS / (HIGH - LOW))).floor().clamp(0, BINS - 1).long()
    return torch.bincount(bins, minlength=BINS).double() / score.numel()


def affordable(rows: int, columns: int) -> bool:
    """Whether singular values of a matrix of this size cost next to nothing beside a run."""
    return rows * columns * min(rows, columns) <= AFFORDABLE


def sampled_singular_values(matrix: Tensor, positions: Tensor) -> Tensor:
    """Singular values at some positions, the largest at 0, computed in fp32.

    Args:
        matrix: [rows, columns].
        positions: int64 [n].

    Returns:
        fp32 [n].
    """
    return torch.linalg.svdvals(matrix.float())[positions.to(matrix.device)]


def spread_positions(count: int) -> Tensor:
    """Up to ``POSITIONS`` evenly spaced positions among ``count``, both ends included, int64."""
    return torch.linspace(0, count - 1, min(count, POSITIONS), dtype=torch.float64).round().long()
