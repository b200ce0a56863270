"""The report of a run: numbers beside the weights, a table, pictures and a page."""

from .records import BlockReport, Importance, LayerReport, Spectrum
from .report import REPORT_NAME, Report
from .table import format_table
from .writing import draw, write_report


__all__ = [
    "REPORT_NAME",
    "BlockReport",
    "Importance",
    "LayerReport",
    "Report",
    "Spectrum",
    "draw",
    "format_table",
    "write_report",
]
