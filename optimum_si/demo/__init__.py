"""The demo behind ``optimum-cli si demo``; torch and transformers load when it runs."""

import os
from pathlib import Path
from typing import Any

from optimum_si.errors import ConfigurationError


__all__ = ["run_demo"]

DEFAULT_OUTPUT = Path("outputs/si-demo")


def run_demo(
    embeddings: bool = False,
    language_model: bool = False,
    minutes: float = 5.0,
    model: str | None = None,
    dataset: Any = None,
    output: str | Path | None = None,
    quick: bool = False,
    overwrite: bool = False,
) -> None:
    """Prune a model by several recipes, print what each lost, and keep the best 2:4 result.

    The default model is SmolLM2-135M-Instruct, which is pruned by recipes with and without fits, answers a question,
    and is exported without its zeros.

    Args:
        embeddings: prune the sentence encoder all-MiniLM-L6-v2, with and without Sparsity Induction.
        language_model: train a small language model on Python's standard library and prune that one.
        minutes: time to train it for; the trained model is cached.
        model: Hub id or local folder of a model of your own; needs ``dataset``.
        dataset: text for ``model``: half of it calibrates, the other half measures.
        output: where the result at 2:4 goes; None is ``outputs/si-demo``, whose content is replaced.
        overwrite: replace what is in ``output``.
        quick: less data and fewer runs, to see that everything works; the environment's ``SI_QUICK=1`` does the same.

    Raises:
        ConfigurationError: for arguments that do not go together.
        SIError: when there is nothing to run on, or the output directory is not empty.
    """
    if (model is None) != (dataset is None):
        raise ConfigurationError("--model and --dataset go together: give both, or neither for the demo's own.")
    chosen = {"--embeddings": embeddings, "--language-model": language_model, "--model": model is not None}
    if len(several := [flag for flag, given in chosen.items() if given]) > 1:
        raise ConfigurationError(f"{' and '.join(several)} are demos of their own: give one of them.")
    if not minutes > 0:
        raise ConfigurationError(f"--minutes {minutes:g}: expected a number above 0.")
    quick = quick or os.environ.get("SI_QUICK") == "1"
    directory = DEFAULT_OUTPUT if output is None else Path(output)

    from .comparison import check_destination, quiet_transformers

    check_destination(directory, DEFAULT_OUTPUT, overwrite)
    with quiet_transformers():
        if language_model:
            from .language_model import run_language_model

            run_language_model(minutes, directory, quick)
        elif model is not None:
            from .own_model import run_own_model

            run_own_model(model, dataset, directory, quick)
        elif embeddings:
            from .embeddings import run_embeddings

            run_embeddings(directory, quick)
        else:
            from .instruct_model import run_instruct_model

            run_instruct_model(directory, quick)
