"""``optimum-cli si prune``: from a dense checkpoint to a sparse one."""

import shlex
from argparse import ArgumentParser, Namespace

from optimum_si.checkpoint.outputs import check_output

from .base import SISubcommand, add_model_arguments, model_options
from .recipe import add_recipe_arguments, config_from_args


class PruneCommand(SISubcommand):
    HELP = "Prune a model and save it."
    USAGE = "-m MODEL --dataset DATA -o DIR [--sparsity F | --pattern N:M] [options]"
    DESCRIPTION = (
        "Prune a model: learn channel scales and shifts that leave its function as it is (Sparsity Induction),\n"
        "then set weights to zero with magnitude, Wanda or SparseGPT. The result is a plain transformers checkpoint."
    )
    EXAMPLES = """\
  Half of the weights, with the defaults (SparseGPT after induction):
    optimum-cli si prune -m facebook/opt-125m --dataset wikitext2 -o opt-125m-50

  2:4, the pattern of sparse tensor cores, with Wanda, on your own text:
    optimum-cli si prune -m ./my-model --dataset "corpus/*.txt" --method wanda --pattern 2:4 -o my-model-2of4

  The same without induction, to see what induction gives:
    optimum-cli si prune -m ./my-model --dataset "corpus/*.txt" --method wanda --pattern 2:4 \\
        --no-induction -o my-model-wanda

  A smaller and faster run: fewer and shorter windows, one epoch, on a GPU:
    optimum-cli si prune -m Qwen/Qwen3-0.6B --dataset c4 --num-samples 32 --sequence-length 512 --epochs 1 \\
        --dtype bfloat16 --device cuda -o qwen3-50

  Only the MLPs, and none of the first block:
    optimum-cli si prune -m ./my-model --dataset data.jsonl --include "*.mlp.*" --exclude "*.layers.0.*" -o mlp-50

  Repeat a saved recipe at another sparsity:
    optimum-cli si prune -m ./my-model --config my-model-2of4/si_config.json --sparsity 0.6 -o my-model-60
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        add_model_arguments(parser)
        add_recipe_arguments(parser)
        parser.add_argument("--verbose", action="store_true", help="print a line for every layer before the summary")

    def execute(self, args: Namespace) -> None:
        # Wrong usage and a full output folder are reported before a model is loaded.
        config = config_from_args(args)
        check_output(
            args.output, args.overwrite, [args.model, args.tokenizer, args.config, config.calibration.dataset]
        )

        from optimum_si.pruner import SIPruner

        pruner = SIPruner.from_pretrained(args.model, **model_options(args))
        dataset = config.calibration.dataset
        pruner.prune(config, dataset=dataset, save_dir=args.output, overwrite=args.overwrite)
        assert pruner.report is not None  # a run that ends without an error leaves one
        if args.verbose:
            print(pruner.report.table(), end="\n\n")
        print(pruner.report.summary())
        words = ["optimum-cli", "si", "report", str(args.output)]
        print(f"\nEvery layer, in pictures and on a page:\n  {shlex.join(words)}")
        if pruner.model.can_generate() and not pruner.model.config.is_encoder_decoder:
            from optimum_si.calibration.files import looks_like_a_path

            # Of datasets by name, another split is measured on.
            held_out = "held-out.txt" if dataset is None or looks_like_a_path(dataset) else dataset
            words = ["optimum-cli", "si", "evaluate", "-m", args.model, str(args.output), "--dataset", held_out]
            words += ["--gguf-file", args.gguf_file] if args.gguf_file else []
            print(f"\nMeasure it beside the dense model, on text that it has not seen:\n  {shlex.join(words)}")
