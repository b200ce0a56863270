"""Grids of the quantized exports: which values ONNX Runtime's quantizers leave as they are."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """Whole multiples, from ``lowest`` to ``highest``, of a scale that consecutive input weights of a row share.

    The exporter takes the weight of the largest magnitude in a group and divides it by ``lowest``. A group on the grid
    therefore has to hold that code (its anchor) somewhere: then its scale is found again to the last bit, and all
    other weights are left alone.

    Args:
        columns: consecutive columns of [d_out, d_in] that share a scale; None is the whole row. A last group that is
            shorter has a scale too: the exporter fills it up with zeros.
        lowest: the code of the anchor.
        highest: the largest code.
        fractions: of the largest magnitude that a scale is tried at; what is cut off there is won in finer steps.
    """

    columns: int | None
    lowest: int
    highest: int
    fractions: tuple[float, ...] = (1.0,)

    def group(self, d_in: int) -> int:
        """Columns that share a scale, in a layer of ``d_in`` columns."""
        return self.columns or d_in

    def scale(self, extreme: Tensor) -> Tensor:
        """Scale of groups whose weights of the largest magnitude are ``extreme``; negative where those are positive.

        0 where all weights are zeros, or too small for a scale that fp32 can divide by: they are rounded to zero.
        """
        # The exporter computes in fp32: a finer scale would not be found again.
        scale = (extreme / self.lowest).float()
        usable = scale.abs() >= torch.finfo(torch.float32).tiny
        return torch.where(usable, scale, torch.zeros_like(scale)).to(extreme.dtype)

    def codes(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The nearest codes of weights, as floats; broadcasts."""
        codes = (weight / torch.where(scale == 0, torch.ones_like(scale), scale)).round()
        return codes.clamp(self.lowest, self.highest) * (scale != 0)

    def values(self, codes: Tensor, scale: Tensor) -> Tensor:
        """What codes stand for; zeros without a sign."""
        return codes * scale + 0.0

    def nearest(self, weight: Tensor) -> Tensor:
        """Round each weight to its nearest grid value, as the exporter does; [d_out, d_in]."""
        groups = weight.split(self.group(weight.shape[1]), dim=1)
        return torch.cat([self._nearest(group) for group in groups], dim=1)

    def _nearest(self, group: Tensor) -> Tensor:
        scale = self.scale(group.gather(1, anchors(group.T)[:, None]))
        return self.values(self.codes(group, scale), scale)


def anchors(columns: Tensor) -> Tensor:
    """Which of the columns [n, d_out] holds the weight of the largest magnitude of each row, int64 [d_out]."""
    return columns.abs().argmax(dim=0)


#: By the name of the export. int8 is ``quantize_dynamic`` with a reduced range, symmetric, a scale for each output:
#: max |w| / 64, codes within [-64, 64]. int4 is MatMulNBits, symmetric, blocks of 32 inputs: max / -8, codes [-8, 7].
#: int8 gains nothing by other scales (a layer's error on its Gram matrix grows by 1%), int4 gains 7% of its error.
GRIDS = {"int8": Grid(None, -64, 64), "int4": Grid(32, -8, 7, (1.0, 0.975, 0.95, 0.925, 0.9, 0.875, 0.85))}
