"""Initial scales (Eq. 5 and alternatives), their normalization, and rounding to powers of two."""

import torch
from torch import Tensor

from optimum_si.linalg.moments import Moments


def robust_scale(sample: Tensor, moments: Moments) -> Tensor:
    """Eq. 5: s_i = (median_j x_ji - g(mean_j x_ji))^2, with g the mean over channels, which the paper leaves open.

    Args:
        sample: tokens x, [n, d_in].
        moments: of all tokens; gives the channel means.

    Returns:
        fp64 [d_in] >= 0, neither normalized nor clamped.
    """
    return (sample.double().median(dim=0).values - moments.mean.mean()).square()


def activation_scale(moments: Moments) -> Tensor:
    """s_i = sqrt(root mean square of channel i), fp64 [d_in]."""
    return moments.diagonal.pow(0.25)


def normalized_log(scale: Tensor, index: Tensor | None, size: int, max_scale: float) -> Tensor:
    """log s with geometric mean 1, within [-log max_scale, log max_scale].

    Raw values of Eq. 5 span six orders of magnitude and a dead channel gives 0, so they are clamped around their own
    median, centered, and clamped again.

    Args:
        scale: [d_in] >= 0, one value for each input channel of a consumer.
        index: [d_in], which entry of s each channel takes (heads that share one); None means its own.
        size: entries of s.
        max_scale: bound of s and 1 / s.
    """
    bound = float(torch.log(torch.tensor(max_scale, dtype=torch.float64)))
    log = scale.double().clamp_min(1e-30).log()
    log = (log - log.median()).clamp(-bound, bound)
    if index is not None:
        counts = torch.zeros(size, dtype=log.dtype, device=log.device).index_add_(0, index, torch.ones_like(log))
        log = torch.zeros_like(counts).index_add_(0, index, log) / counts
    return (log - log.mean()).clamp(-bound, bound)


def power_of_two(scale: Tensor, base: int = 2) -> Tensor:
    """The nearest power of ``base`` in log scale: multiplying by it loses no bit in fp32 and bf16.

    Args:
        scale: positive, any shape.
        base: 2, or 4 where the square root of s is absorbed too.
    """
    exponent = torch.round(scale.double().log2() / (base.bit_length() - 1)) * (base.bit_length() - 1)
    return torch.exp2(exponent)
