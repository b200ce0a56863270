"""``optimum-cli si evaluate``: perplexity and measured sparsity of a checkpoint."""

import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from .base import SISubcommand, add_data_arguments, add_model_arguments, given, model_options


if TYPE_CHECKING:
    from transformers import PreTrainedModel


class EvaluateCommand(SISubcommand):
    HELP = "Measure the perplexity and the sparsity of a model."
    USAGE = "-m MODEL --dataset DATA [options]"
    DESCRIPTION = (
        "Measure a causal language model: perplexity on held-out text, and the share of zeros in the layers that\n"
        "pruning treats. The numbers are counted from the weights, not read from what a run recorded."
    )
    EXAMPLES = """\
  A pruned model, on the test split:
    optimum-cli si evaluate -m opt-125m-2of4 --dataset wikitext2

  The dense model, on the same windows:
    optimum-cli si evaluate -m facebook/opt-125m --dataset wikitext2

  A quick look, at your own text, for a program to read:
    optimum-cli si evaluate -m ./my-model-2of4 --dataset held-out.txt --sequence-length 512 --max-windows 20 --json
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        add_model_arguments(parser)
        data = parser.add_argument_group("evaluation data")
        add_data_arguments(data, "held-out text", split="test", required=True)
        data.add_argument("--max-windows", type=int, metavar="N", help="stop after N windows (default: all)")
        parser.add_argument("--json", action="store_true", help="print JSON instead of two lines")

    def execute(self, args: Namespace) -> None:
        from ..configuration import CalibrationConfig
        from ..evaluation import evaluation_texts, max_evaluation_windows, perplexity
        from ..pruner import SIPruner

        texts = evaluation_texts(args.dataset, CalibrationConfig(**given(args, "dataset_config", "split", "column")))
        pruner = SIPruner.from_pretrained(args.model, **model_options(args))
        sparsity = measured_sparsity(pruner.model)
        max_windows = max_evaluation_windows(args.dataset) if args.max_windows is None else args.max_windows
        value = perplexity(
            pruner.model,
            pruner.tokenizer,
            texts,
            max_windows=max_windows,
            **given(args, "sequence_length", "batch_size"),
        )
        if args.json:
            result = {"model": args.model, "dataset": args.dataset, "perplexity": value, "sparsity": sparsity}
            print(json.dumps(result, indent=2))
        else:
            print(f"perplexity: {value:.4g} on {args.dataset}")
            print(f"sparsity: {sparsity:.2%} of the weights in the transformer blocks' linear layers are zero")


def measured_sparsity(model: "PreTrainedModel") -> float:
    """Share of zeros among the weights that pruning could treat, whether or not it did."""
    from ..models.blocks import find_structure, select_views

    views = [view for block in select_views(find_structure(model), None, None) for view in block.values()]
    weights = [view.read() for view in views]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
