"""``optimum-cli si inspect``: what of a model would be pruned."""

import json
from argparse import ArgumentParser, Namespace

from .base import SISubcommand


class InspectCommand(SISubcommand):
    HELP = "Show what of a model would be pruned, and what stays dense."
    USAGE = "MODEL [--include GLOB ...] [--exclude GLOB ...] [--stacks GLOB ...] [--json]"
    DESCRIPTION = (
        "Print each list of blocks of a model with its layers, their numbers of weights and the pairs through which\n"
        "scales pass, and what stays dense and why. Weights are not read, so this takes seconds for any size."
    )
    EXAMPLES = """\
  What a model consists of:
    optimum-cli si inspect Qwen/Qwen3-0.6B

  What a recipe would leave:
    optimum-cli si inspect openai/whisper-base --stacks "model.decoder.*"

  For a program to read:
    optimum-cli si inspect facebook/opt-125m --json
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("model", metavar="MODEL", help="Hub id or local folder")
        parser.add_argument("--revision", metavar="REVISION", help="branch, tag or commit on the Hub")
        for name, what in (("include", "modules whose name matches"), ("stacks", "these lists of blocks")):
            parser.add_argument(f"--{name}", nargs="+", metavar="GLOB", help=f"as of `prune`: only {what}")
        parser.add_argument("--exclude", nargs="+", metavar="GLOB", help="as of `prune`: modules that stay dense")
        parser.add_argument("--json", action="store_true", help="print JSON instead of tables")

    def execute(self, args: Namespace) -> None:
        from optimum_si.pipeline.inspect import inspect

        place = {} if args.revision is None else {"revision": args.revision}
        found = inspect(args.model, args.include, args.exclude, args.stacks, **place)
        print(json.dumps(found.to_dict(), indent=2) if args.json else found.text())
