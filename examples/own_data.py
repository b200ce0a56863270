"""Calibrate on your own data: a JSON-lines file with a column of text, then the same texts as you tokenize them.

    python examples/own_data.py MODEL DATA.jsonl COLUMN OUTPUT

With SI_QUICK=1 few short windows and one epoch are used.
"""

import json
import os
import sys
from pathlib import Path

from optimum_si import CalibrationConfig, InductionConfig, SIConfig, SIPruner


QUICK = os.environ.get("SI_QUICK") == "1"
WINDOWS, LENGTH, EPOCHS = (8, 32, 1) if QUICK else (128, 2048, 5)


def main(model: str, data: str, column: str, output: str) -> None:
    from_text(model, data, column, output)
    from_tokens(model, data, column)


def from_text(model: str, data: str, column: str, output: str) -> None:
    """The library tokenizes: windows are packed from documents that a seed draws."""
    recipe = SIConfig(
        "wanda",
        pattern="2:4",
        induction=InductionConfig(epochs=EPOCHS),
        calibration=CalibrationConfig(num_samples=WINDOWS, sequence_length=LENGTH, column=column),
    )
    pruner = SIPruner.from_pretrained(model)
    pruner.prune(recipe, dataset=data, save_dir=output)
    print(f"from text\n{pruner.report.summary()}\n")


def from_tokens(model: str, data: str, column: str) -> None:
    """You tokenize, for example with a chat template; examples are used as they are, and may differ in length."""
    pruner = SIPruner.from_pretrained(model)
    lines = Path(data).read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)[column] for line in lines if line.strip()]
    length = min(LENGTH, pruner.model.config.get_text_config().max_position_embeddings)
    examples = [dict(pruner.tokenizer(text, truncation=True, max_length=length)) for text in texts[:WINDOWS]]
    pruner.prune(SIConfig("wanda", pattern="2:4", induction=InductionConfig(epochs=EPOCHS)), dataset=examples)
    print(f"from tokens\n{pruner.report.summary()}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(f"usage: {__doc__.splitlines()[2].strip()}")
    main(*sys.argv[1:])
