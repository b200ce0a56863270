"""Whether values can be stored and computed with."""

from collections.abc import Iterable

import torch
from torch import Tensor


def all_finite(values: Iterable[Tensor | None]) -> bool:
    """Whether none of the tensors, of any shape and float dtype, holds NaN or infinity; None is passed over."""
    return all(bool(torch.isfinite(value).all()) for value in values if value is not None)
