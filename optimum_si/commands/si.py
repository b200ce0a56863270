"""``optimum-cli si``: the list of subcommands."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

from .benchmark import BenchmarkCommand
from .check import CheckCommand
from .demo import DemoCommand
from .evaluate import EvaluateCommand
from .export import ExportCommand
from .induce import InduceCommand
from .inspect import InspectCommand
from .prune import PruneCommand
from .push import PushCommand
from .recover import RecoverCommand
from .report import ReportCommand


EXAMPLES = """\
examples:
  See what it does, on a real model, in a few minutes:
    optimum-cli si demo
  Prune a model to 2:4 and measure it:
    optimum-cli si prune -m facebook/opt-125m --dataset wikitext2 --pattern 2:4 -o opt-125m-2of4
    optimum-cli si evaluate -m opt-125m-2of4 --dataset wikitext2
  Run it on ONNX Runtime:
    optimum-cli si export opt-125m-2of4 opt-125m-onnx --values int8
    optimum-cli si benchmark opt-125m-2of4 opt-125m-onnx
  Every subcommand has examples of its own:
    optimum-cli si prune --help
"""


class SICommand(BaseOptimumCLICommand):
    COMMAND = CommandInfo("si", help="Prune transformers with little loss (Sparsity Induction).")
    SUBCOMMANDS = tuple(
        CommandInfo(name, help=command.HELP, subcommand_class=command)
        for name, command in (
            ("inspect", InspectCommand),
            ("prune", PruneCommand),
            ("induce", InduceCommand),
            ("recover", RecoverCommand),
            ("evaluate", EvaluateCommand),
            ("report", ReportCommand),
            ("push", PushCommand),
            ("export", ExportCommand),
            ("check", CheckCommand),
            ("benchmark", BenchmarkCommand),
            ("demo", DemoCommand),
        )
    )

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        parser.description = "Sparsity Induction (arXiv 2602.21652): reshape a model's weights, then prune them."
        parser.epilog = EXAMPLES
        parser.formatter_class = RawDescriptionHelpFormatter
