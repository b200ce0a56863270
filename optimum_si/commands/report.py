"""``optimum-cli si report``: what a pruning run did, read from its output folder."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from .base import SISubcommand


if TYPE_CHECKING:
    from optimum_si.report import Report


class ReportCommand(SISubcommand):
    HELP = "Show what a pruning run did, as a table, in pictures and on a page."
    USAGE = "DIR [--json] [--output FOLDER | --no-pictures]"
    DESCRIPTION = (
        "Print the table that `prune` saved beside the weights, in DIR/si_report.json, and write pictures and a page\n"
        "for the browser, DIR/report/index.html."
    )
    EXAMPLES = """\
  The table of a run, and opt-125m-2of4/report/index.html:
    optimum-cli si report opt-125m-2of4

  The table alone:
    optimum-cli si report opt-125m-2of4 --no-pictures

  Numbers for a program to read:
    optimum-cli si report opt-125m-2of4 --json --no-pictures
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("directory", type=Path, metavar="DIR", help="folder that `prune` wrote")
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
        pictures = parser.add_mutually_exclusive_group()
        pictures.add_argument(
            "--output", type=Path, metavar="FOLDER", help="where pictures and page go (default: DIR/report)"
        )
        pictures.add_argument("--no-pictures", action="store_true", help="write no pictures and no page")

    def execute(self, args: Namespace) -> None:
        from optimum_si.report import Report

        report = Report.load(args.directory)
        if args.json:
            print(json.dumps(report.to_dict(), indent=2))
        else:
            print(report.table(), report.summary(), sep="\n\n")
        if not args.no_pictures and report.layers:
            # Where nobody reads on, such as after `head`, nothing is drawn.
            sys.stdout.flush()
            self._write(report, args)

    @staticmethod
    def _write(report: "Report", args: Namespace) -> None:
        from optimum_si.errors import PictureError
        from optimum_si.report import write_report

        folder = args.output or args.directory / "report"
        # With --json the output is for a program alone.
        stream = sys.stderr if args.json else sys.stdout
        try:
            page, *pictures = write_report(report, folder, args.directory.resolve().name)
        except PictureError as error:
            print(f"note: {error}", file=sys.stderr)
        else:
            print(f"\npage: {page}, with {len(pictures)} pictures beside it", file=stream)
