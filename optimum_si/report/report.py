"""The report of a run: its record, as text for a screen and as one small JSON file beside the weights."""

import json
import math
import re
from pathlib import Path
from typing import Any, Self

from optimum_si.config.small_files import read_small
from optimum_si.errors import CheckpointError
from optimum_si.version import __version__

from .records import RunReport
from .summary import layer_table, run_summary


REPORT_NAME = "si_report.json"
#: No count in a report is as large.
_LARGEST = 2**63
#: Bytes of a report: tens of thousands of layers have half a kilobyte each.
_LARGEST_FILE = 1 << 26
#: A list of numbers as ``json`` indents it.
_NUMBERS = re.compile(r"\[\n[-+\d.eE,\s]+\]")


class Report(RunReport):
    """What a run did, with every field of :class:`~optimum_si.report.records.RunReport`, to print, save and load."""

    def table(self) -> str:
        """A line for each layer, as text."""
        return layer_table(self.layers)

    def summary(self) -> str:
        """The whole run in at most 40 lines: kinds of layers, the worst layers, totals."""
        return run_summary(self)

    def save(self, directory: str | Path) -> None:
        """Write ``si_report.json``."""
        (Path(directory) / REPORT_NAME).write_text(_to_json(self.to_dict()), encoding="utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read ``si_report.json``.

        Raises:
            CheckpointError: when the directory has none, or it is damaged.
        """
        path = Path(directory) / REPORT_NAME
        if not path.is_file():
            raise CheckpointError(
                f"{str(directory)!r} holds no {REPORT_NAME}: give a directory that "
                "`optimum-cli si prune -o DIR` wrote."
            )
        try:
            values = json.loads(read_small(path, _LARGEST_FILE))
            _check_numbers(values)
            return cls.from_dict(values)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{str(path)!r} cannot be read by optimum-si {__version__} ({error}): it is damaged, or was written "
                "by a newer version. Upgrade, or run `optimum-cli si prune` again."
            ) from error


def _check_numbers(values: Any) -> None:
    """Raise ValueError for NaN, infinity, and integers that no number of weights or tokens reaches."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            _check_numbers(value)
    elif isinstance(values, float) and not math.isfinite(values) or isinstance(values, int) and abs(values) > _LARGEST:
        raise ValueError("a number is NaN, or beyond all bounds")


def _to_json(values: dict[str, Any]) -> str:
    """Indented, with the numbers of a list on one line: a histogram is as short as it is readable."""
    return (
        _NUMBERS.sub(lambda numbers: " ".join(numbers[0].split()), json.dumps(values, indent=1, allow_nan=False))
        + "\n"
    )
