"""What ``evaluate --save`` leaves beside a pruned model: results, and a card that shows them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from optimum_si.hub.base_model import public_name
from optimum_si.hub.card import CARD_NAME, read_card, write_card
from optimum_si.hub.results import Result, save_results
from optimum_si.report import REPORT_NAME

from .results import Evaluation


#: Fraction of zeros below which a model counts as dense.
DENSE_BELOW = 0.01


def keep_results(
    evaluations: Sequence[Evaluation], sequence_length: int | None = None, max_windows: int | None = None
) -> list[Path]:
    """Keep what was measured in every directory that ``prune`` wrote, and write its card anew unless it was edited.

    Args:
        evaluations: of several models on the same data; the first one without zeros is what others are compared with.
        sequence_length: tokens of a window, where it was chosen.
        max_windows: how many windows of the text were used, where not all.

    Returns:
        The directories.

    Raises:
        CheckpointError: when results that a directory holds are damaged, or cannot be written.
    """
    dense = next((entry for entry in evaluations if entry.sparsity < DENSE_BELOW), None)
    kept = []
    for entry in evaluations:
        directory = Path(entry.model)
        is_ours = (directory / REPORT_NAME).is_file() and not any(directory.glob("*.onnx"))
        if entry is not dense and is_ours:
            save_results(directory, _results_of(entry, dense, sequence_length, max_windows))
            card = directory / CARD_NAME
            previous = read_card(card) if card.is_file() else None
            write_card(directory, directory.resolve().name, previous)
            kept.append(directory)
    return kept


def _results_of(
    entry: Evaluation, dense: Evaluation | None, sequence_length: int | None, max_windows: int | None
) -> Iterator[Result]:
    if entry.perplexity is not None:
        parts = [] if max_windows is None else [f"first {max_windows} windows"]
        parts += [] if sequence_length is None else [f"{sequence_length} tokens a window"]
        base = None if dense is None else dense.perplexity
        yield Result(public_name(entry.dataset or "text"), "perplexity", entry.perplexity, base, ", ".join(parts))
    for name, score in entry.tasks.items():
        base = None if dense is None else dense.tasks[name].value
        yield Result(name, score.metric, score.value, base, f"{score.examples} examples")
