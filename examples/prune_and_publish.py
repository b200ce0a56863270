"""Prune a model to 2:4, measure it beside the dense one, and publish it with a model card.

    python examples/prune_and_publish.py MODEL DATASET OWNER/NAME

MODEL is a folder or a Hub id, DATASET a Hub name or text files. Log in with `hf auth login` first, or set HF_TOKEN.
SI_QUICK=1 makes it small.
"""

import os
import sys

from optimum_si import SIConfig, SIPruner, perplexity
from optimum_si.evaluation.perplexity import evaluation_texts
from optimum_si.hub.base_model import public_name
from optimum_si.hub.results import Result, save_results


QUICK = os.environ.get("SI_QUICK") == "1"
CALIBRATION = {"num_samples": 8, "sequence_length": 32} if QUICK else {}
WINDOWS = {"max_windows": 4, "sequence_length": 32} if QUICK else {}


def main(model: str, dataset: str, repo_id: str) -> None:
    pruner = SIPruner.from_pretrained(model)
    texts = evaluation_texts(dataset)
    dense = perplexity(pruner.model, pruner.tokenizer, texts, **WINDOWS)
    output = repo_id.rsplit("/", 1)[-1]
    pruner.prune(SIConfig("sparsegpt", pattern="2:4", calibration=CALIBRATION), dataset=dataset, save_dir=output)
    print(pruner.report.summary())
    sparse = perplexity(pruner.model, pruner.tokenizer, texts, **WINDOWS)
    # The card shows what lies beside the saved model.
    save_results(output, [Result(public_name(dataset), "perplexity", sparse, dense=dense)])
    print(f"perplexity: {dense:.4g} dense, {sparse:.4g} pruned")
    print(pruner.push_to_hub(repo_id).commit_url)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
