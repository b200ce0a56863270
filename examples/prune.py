"""Prune a model to 2:4 on your own text, save it, and load it with stock transformers.

python examples/prune.py MODEL DATASET OUTPUT
"""

import os
import sys

from transformers import AutoModelForCausalLM

from optimum_si import SIConfig, SIPruner


CALIBRATION = {"num_samples": 8, "sequence_length": 32} if os.environ.get("SI_QUICK") == "1" else {}


def main(model: str, dataset: str, output: str) -> None:
    pruner = SIPruner.from_pretrained(model)
    pruner.prune(SIConfig("wanda", pattern="2:4", calibration=CALIBRATION), dataset=dataset, save_dir=output)
    print(pruner.report.summary())
    reloaded = AutoModelForCausalLM.from_pretrained(output)
    print(f"{type(reloaded).__name__}: {reloaded.config.sparsity_config}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: {__doc__.strip().splitlines()[-1]}")
    main(*sys.argv[1:])
