"""Zeros, counted from the weights and not read from what a run recorded."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from optimum_si.models.experts.unfused import experts_as_linears
from optimum_si.models.selection import select_views
from optimum_si.models.structure import find_structure


if TYPE_CHECKING:
    from optimum_si.onnx.inspect import CheckedMatrix


def measured_sparsity(model: PreTrainedModel) -> float:
    """Returns the fraction of zeros among the weights that pruning could treat, whether or not it did."""
    with experts_as_linears(model):
        views = [view for block in select_views(find_structure(model), None, None) for view in block.values()]
        weights = [view.read() for view in views]
        return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def exported_sparsity(matrices: "Sequence[CheckedMatrix]", vocabulary: int) -> float:
    """Returns the fraction of zeros among the matrices of an export, its head aside, as in checkpoints.

    Args:
        matrices: all of the export, as ``optimum_si.onnx.inspect.check`` finds them.
        vocabulary: size of the model's vocabulary, by which the head is told.
    """
    counted = matrices[:-1] if matrices[-1].columns == vocabulary else matrices
    sizes = [matrix.rows * matrix.columns for matrix in counted]
    return sum(matrix.zeros * size for matrix, size in zip(counted, sizes, strict=True)) / sum(sizes)
