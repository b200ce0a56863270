"""``optimum-cli si evaluate``: perplexity, zero-shot accuracy and measured sparsity, of one model or several."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from optimum_si.config.option_types import read_integer
from optimum_si.evaluation.options import check_options

from .base import SISubcommand, add_data_arguments, add_model_arguments, given, model_options


_OPTIONS = (
    *("dataset", "dataset_config", "split", "column", "sequence_length", "batch_size", "max_windows"),
    *("tasks", "task_folder", "limit"),
)


class EvaluateCommand(SISubcommand):
    HELP = "Measure perplexity, zero-shot accuracy and sparsity of models."
    USAGE = "-m MODEL [MODEL ...] [--dataset DATA] [--tasks TASK [TASK ...]] [options]"
    DESCRIPTION = (
        "Measure causal language models: perplexity on held-out text, accuracy on tasks of lm-eval (extra eval), and\n"
        "the share of zeros in the layers that pruning treats. Several models stand side by side, compared with the\n"
        "first. Zeros are counted from the weights, not read from what a run recorded."
    )
    EXAMPLES = """\
  Dense and pruned, on the test split:
    optimum-cli si evaluate -m facebook/opt-125m opt-125m-2of4 --dataset wikitext2

  The seven zero-shot tasks of the pruning papers too (hours on a CPU; --limit 100 for a quick look):
    optimum-cli si evaluate -m facebook/opt-125m opt-125m-2of4 --dataset wikitext2 --tasks zero-shot

  A task of your own, in a YAML file of lm-eval's format, and what an export keeps of it:
    optimum-cli si evaluate -m opt-125m-2of4 opt-125m-onnx --tasks my_task --task-folder my-tasks

  The same numbers into the model card of the pruned one:
    optimum-cli si evaluate -m facebook/opt-125m opt-125m-2of4 --dataset wikitext2 --save

  A quick look, at your own text, for a program to read:
    optimum-cli si evaluate -m ./my-model-2of4 --dataset held-out.txt --sequence-length 512 --max-windows 20 --json
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        add_model_arguments(
            parser, several="Hub ids, local folders, GGUF files or exports to ONNX; the first is compared with"
        )
        data = parser.add_argument_group("perplexity")
        add_data_arguments(data, "held-out text", split="test")
        data.add_argument("--max-windows", type=read_integer, metavar="N", help="stop after N windows (default: all)")
        tasks = parser.add_argument_group("tasks")
        tasks.add_argument(
            "--tasks",
            nargs="+",
            metavar="TASK",
            help='"zero-shot" (BoolQ, RTE, HellaSwag, WinoGrande, ARC-easy and -challenge, OpenBookQA, each apart and '
            "their mean), or names of lm-eval",
        )
        tasks.add_argument("--task-folder", type=Path, metavar="DIR", help="YAML files of your own tasks")
        tasks.add_argument(
            "--limit", type=read_integer, metavar="N", help="first N examples of each task (default: all)"
        )
        parser.add_argument(
            "--save",
            action="store_true",
            help="keep the numbers in the folders that `prune` wrote (si_evaluation.json), for their model cards",
        )
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table: a list for several")

    def execute(self, args: Namespace) -> None:
        # Wrong usage is told before torch is imported.
        check_options(args.model, vars(args), spelled=lambda name: f"--{name.replace('_', '-')}")

        from optimum_si.evaluation.evaluate import evaluate

        found = evaluate(args.model, save=args.save, **given(args, *_OPTIONS), **model_options(args))
        if args.save:
            saved = ", ".join(map(str, found.saved_in)) or "no folder: none but the dense one is of `prune`"
            print(f"numbers kept in {saved}", file=sys.stderr)
        if args.json:
            values = found.to_dict()
            print(json.dumps(values[0] if len(values) == 1 else values, indent=2))
        elif len(found) > 1 or args.tasks:
            print(found.table())
        else:
            print(f"perplexity: {found[0].perplexity:.4g} on {args.dataset}")
            print(
                f"sparsity: {found[0].sparsity:.2%} of the weights in the transformer blocks' linear layers are zero"
            )
