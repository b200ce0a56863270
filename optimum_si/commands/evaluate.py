"""``optimum-cli si evaluate``: perplexity, zero-shot accuracy and measured sparsity, of one model or several."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimum_si.config.validators import check_integer
from optimum_si.errors import ConfigurationError

from .base import SISubcommand, add_data_arguments, add_model_arguments, given, model_options


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from optimum_si.evaluation.results import Evaluation

#: Options that say something about the data of one measurement only.
_OF_DATASET = ("dataset_config", "split", "column", "sequence_length", "max_windows")
_OF_TASKS = ("task_folder", "limit")


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
        add_model_arguments(parser, several="Hub ids, local folders or exports to ONNX; the first is compared with")
        data = parser.add_argument_group("perplexity")
        add_data_arguments(data, "held-out text", split="test")
        data.add_argument("--max-windows", type=int, metavar="N", help="stop after N windows (default: all)")
        tasks = parser.add_argument_group("tasks")
        tasks.add_argument(
            "--tasks",
            nargs="+",
            metavar="TASK",
            help='"zero-shot" (BoolQ, RTE, HellaSwag, WinoGrande, ARC-easy and -challenge, OpenBookQA, each apart and '
            "their mean), or names of lm-eval",
        )
        tasks.add_argument("--task-folder", type=Path, metavar="DIR", help="YAML files of your own tasks")
        tasks.add_argument("--limit", type=int, metavar="N", help="first N examples of each task (default: all)")
        parser.add_argument(
            "--save",
            action="store_true",
            help="keep the numbers in the folders that `prune` wrote (si_evaluation.json), for their model cards",
        )
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table: a list for several")

    def execute(self, args: Namespace) -> None:
        _check_usage(args)
        from optimum_si.config.groups import CalibrationConfig
        from optimum_si.evaluation.perplexity import evaluation_texts
        from optimum_si.evaluation.results import comparison_table

        if args.limit is not None:
            check_integer("limit", args.limit, 1)
        texts = tasks = None
        if args.dataset is not None:
            texts = evaluation_texts(
                args.dataset, CalibrationConfig(**given(args, "dataset_config", "split", "column"))
            )
        if args.tasks:
            from optimum_si.evaluation.tasks import load_tasks

            tasks = load_tasks(args.tasks, args.task_folder)
        found = [_evaluate(args, model, texts, tasks) for model in args.model]
        if args.save:
            from optimum_si.hub.evaluations import keep_results

            kept = keep_results(found, args.sequence_length, args.max_windows)
            saved = ", ".join(map(str, kept)) or "no folder: none but the dense one is of `prune`"
            print(f"numbers kept in {saved}", file=sys.stderr)
        if args.json:
            values = [evaluation.to_dict() for evaluation in found]
            print(json.dumps(values[0] if len(values) == 1 else values, indent=2))
        elif len(found) > 1 or tasks is not None:
            print(comparison_table(found))
        else:
            print(f"perplexity: {found[0].perplexity:.4g} on {args.dataset}")
            print(
                f"sparsity: {found[0].sparsity:.2%} of the weights in the transformer blocks' linear layers are zero"
            )


def _check_usage(args: Namespace) -> None:
    if args.save and not any(Path(name, "si_report.json").is_file() for name in args.model):
        raise ConfigurationError("--save keeps numbers in folders that `prune` wrote, and none of the models is one.")
    if args.dataset is None and not args.tasks:
        raise ConfigurationError("there is nothing to measure: give --dataset, --tasks or both.")
    for needed, names in (("dataset", _OF_DATASET), ("tasks", _OF_TASKS)):
        if not getattr(args, needed) and (without := given(args, *names)):
            option = next(iter(without)).replace("_", "-")
            raise ConfigurationError(f"--{option} says nothing without --{needed}: give both, or leave it out.")


def _evaluate(args: Namespace, name: str, texts: list[str] | None, tasks: Any) -> "Evaluation":
    """Load one model and measure what was asked for; it is freed before the next one is loaded."""
    from optimum_si.evaluation.perplexity import max_evaluation_windows, perplexity
    from optimum_si.evaluation.results import Evaluation

    exported = Path(name, "model.onnx").is_file()
    model, tokenizer, sparsity = _open_export(args, name) if exported else _open_checkpoint(args, name)
    value, scores = None, {}
    if texts is not None:
        max_windows = max_evaluation_windows(args.dataset) if args.max_windows is None else args.max_windows
        options = given(args, "sequence_length", "batch_size")
        value = perplexity(model, tokenizer, texts, max_windows=max_windows, **options)
    if tasks is not None:
        from optimum_si.evaluation.tasks import task_accuracy

        scores = task_accuracy(model, tokenizer, tasks, **given(args, "limit", "batch_size"))
    return Evaluation(name, "ONNX Runtime" if exported else "PyTorch", sparsity, args.dataset, value, scores)


def _open_checkpoint(args: Namespace, name: str) -> tuple[Any, Any, float]:
    from optimum_si.pruner import SIPruner

    pruner = SIPruner.from_pretrained(name, **model_options(args))
    return pruner.model, pruner.tokenizer, measured_sparsity(pruner.model)


def _open_export(args: Namespace, name: str) -> tuple[Any, Any, float]:
    from optimum_si.checkpoint.load import load_tokenizer
    from optimum_si.onnx.inspect import check
    from optimum_si.onnx.runtime.causal import ORTSIModelForCausalLM

    # Its checksums are compared as the zeros are counted, and need not be again.
    matrices = check(name)
    model = ORTSIModelForCausalLM.from_pretrained(name, verify=False, **given(args, "device"))
    if matrices[-1].columns == model.config.get_text_config().vocab_size:
        matrices.pop()  # the head, which is not counted in checkpoints either
    sizes = [(matrix.zeros, matrix.rows * matrix.columns) for matrix in matrices]
    sparsity = sum(zeros * size for zeros, size in sizes) / sum(size for _, size in sizes)
    return model, load_tokenizer(name, required=False), sparsity


def measured_sparsity(model: "PreTrainedModel") -> float:
    """Share of zeros among the weights that pruning could treat, whether or not it did."""
    from optimum_si.models.structure import find_structure, select_views

    views = [view for block in select_views(find_structure(model), None, None) for view in block.values()]
    weights = [view.read() for view in views]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
