"""``optimum-cli si report``: what a pruning run did, read from its output folder."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from .base import SISubcommand


class ReportCommand(SISubcommand):
    HELP = "Show what a pruning run did."
    USAGE = "DIR [--json]"
    DESCRIPTION = "Print the table that `prune` saved beside the weights, in DIR/si_report.json."
    EXAMPLES = """\
  The table of a run:
    optimum-cli si report opt-125m-2of4

  The same for a program to read:
    optimum-cli si report opt-125m-2of4 --json

  Kept for later:
    optimum-cli si report opt-125m-2of4 > opt-125m-2of4.txt
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("directory", type=Path, metavar="DIR", help="folder that `prune` wrote")
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")

    def execute(self, args: Namespace) -> None:
        from ..reporting import Report

        report = Report.load(args.directory)
        if args.json:
            print(json.dumps(report.to_dict(), indent=2))
        else:
            print(report.table(), report.summary(), sep="\n\n")
