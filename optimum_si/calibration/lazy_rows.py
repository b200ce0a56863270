"""Rows that are read, or made of others, only when they are asked for."""

from collections.abc import Callable, Sequence
from typing import Any

from optimum_si.errors import CalibrationError


class LazyRows(Sequence[Any]):
    """Rows of anything with a length, through a function.

    Args:
        rows: read by position, and never beyond their length: a ``torch.utils.data.Dataset`` need not end by itself.
        function: makes a row of one of these; None leaves them as they are.
    """

    def __init__(self, rows: Any, function: Callable[[Any], Any] | None = None) -> None:
        self.rows, self.function = rows, function

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = row_of(self.rows, index)
        return row if self.function is None else self.function(row)


def row_of(rows: Any, index: int) -> Any:
    """One row, whatever decodes it.

    Raises:
        CalibrationError: where a package is missing that decodes the row.
    """
    try:
        return rows[index]
    except ImportError as error:  # `datasets` names the package, such as torchcodec for audio
        raise CalibrationError(
            f"Row {index} of the calibration data cannot be decoded: {' '.join(str(error).split())} Without that "
            'package, give sounds as {"array", "sampling_rate"}.'
        ) from error
