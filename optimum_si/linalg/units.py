"""Powers of two that bring values near 1: arithmetic neither overflows nor underflows there, and no bit changes."""

import math

from torch import Tensor


#: Exponents of normal fp32 numbers: dividing by 2 to any of them is exact.
_LOWEST, _HIGHEST = -126, 127


def unit_of(values: Tensor) -> float:
    """The power of two just below the largest magnitude among finite values, within fp32; 1 where all are zeros.

    Args:
        values: of any shape and float dtype.
    """
    if not values.numel():
        return 1.0
    low, high = (float(value) for value in values.detach().aminmax())
    largest = max(-low, high)
    if not 0 < largest < math.inf:
        return 1.0
    return 2.0 ** min(max(math.frexp(largest)[1] - 1, _LOWEST), _HIGHEST)
