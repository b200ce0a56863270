"""``optimum-cli si induce``: learn scales and shifts, and save the dense model that they give."""

from argparse import ArgumentParser, Namespace

from optimum_si.checkpoint.outputs import check_output

from .base import SISubcommand, add_model_arguments, command_line, model_options
from .recipe import add_recipe_arguments, config_from_args


class InduceCommand(SISubcommand):
    HELP = "Prepare a dense model for pruning, without pruning it."
    USAGE = "-m MODEL --dataset DATA -o DIR [--sparsity F | --pattern N:M] [options]"
    DESCRIPTION = (
        "Learn channel scales and shifts for a pruning target and fold them into the weights. The model that is\n"
        "saved is dense and computes the same function.\n"
        "\n"
        "The learned scales are saved beside the weights as si_scales.safetensors, and `prune` of that checkpoint\n"
        "takes them up. They are needed: what Wanda and SparseGPT gain comes from these saved scales, which weigh\n"
        "their scores, and not from the weights that absorbed them. Magnitude pruning gains from the weights alone."
    )
    EXAMPLES = """\
  Learn once, for Wanda at 2:4, then prune:
    optimum-cli si induce -m facebook/opt-125m --dataset wikitext2 --method wanda --pattern 2:4 -o opt-125m-si
    optimum-cli si prune -m opt-125m-si --dataset wikitext2 --method wanda --pattern 2:4 -o opt-125m-2of4

  A model whose magnitudes tell more, for any later tool that ranks weights by size:
    optimum-cli si induce -m ./my-model --dataset "corpus/*.txt" --method magnitude --sparsity 0.6 -o my-model-si

  Learn longer, on more text:
    optimum-cli si induce -m ./my-model --dataset c4 --num-samples 256 --epochs 10 --learning-rate 0.02 -o my-model-si
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        add_model_arguments(parser)
        add_recipe_arguments(parser, without=("induction",))
        parser.add_argument("--verbose", action="store_true", help="print a line for every layer")

    def execute(self, args: Namespace) -> None:
        # Wrong usage and a full output folder are reported before a model is loaded.
        config = config_from_args(args)
        check_output(
            args.output, args.overwrite, [args.model, args.tokenizer, args.config, config.calibration.dataset]
        )

        from optimum_si.pruner import SIPruner

        pruner = SIPruner.from_pretrained(args.model, **model_options(args))
        dataset = config.calibration.dataset
        pruner.induce(config, dataset=dataset)
        pruner.save_pretrained(args.output, overwrite=args.overwrite)
        if args.verbose:
            assert pruner.report is not None  # a run that ends without an error leaves one
            print(pruner.report.table(), end="\n\n")
        print(f"Saved the dense model and its learned scales in {args.output}.\n\nPrune it:")
        print(
            " ",
            command_line(
                "prune",
                model=args.output,
                dataset=dataset,
                method=config.method,
                sparsity=config.sparsity,
                pattern=config.pattern,
                output=f"{args.output}-pruned",
            ),
        )
