"""Further windows of the calibration data, which share no text with those that a run has seen."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from optimum_si.config.groups import CalibrationConfig
from optimum_si.config.option_types import MOST_WINDOWS
from optimum_si.warnings import warn

from .prepare import as_examples, draw_for, prepare_examples, texts_of
from .reader import Reader
from .sources import load_source
from .windows import Windower


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Tokens in a row by which text is known again.
KNOWN_BY = 32


def fresh_examples(
    seen: Sequence[dict[str, Tensor]],
    count: int,
    dataset: Any,
    config: CalibrationConfig,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    max_length: int | None = None,
    reader: Reader | None = None,
) -> list[dict[str, Tensor]]:
    """Examples drawn as :func:`prepare_examples` draws them, without those that hold text of earlier ones.

    Args:
        seen: what :func:`prepare_examples` gave for the same data.
        count: windows wanted; single documents count by the full windows that their tokens would fill. 0 gives what
            was seen.
        dataset, config, tokenizer, max_length, reader: as there.

    Returns:
        As there; fewer where the text ends, and what was seen where nothing else is left. A warning says so.
    """
    if count == 0:
        return list(seen)
    dataset = config.dataset if dataset is None else dataset
    # Of what may not end, as much as is drawn below.
    drawn_of = replace(config, num_samples=min(len(seen) + 2 * count, MOST_WINDOWS))
    source = load_source(dataset, drawn_of, reader=reader)
    if not source.is_text or tokenizer is None:
        more = replace(config, num_samples=min(len(seen) + count, MOST_WINDOWS))
        further = prepare_examples(dataset, more, tokenizer, max_length, reader)[len(seen) :]
        if len(further) == count:
            return further
        kind = "tokenized" if source.kind == "tokens" else "this"
        warn(
            f"recovery: {kind} data holds no windows but the {len(seen)} that the fits see, so these serve again; "
            "recovery.num_samples=0 asks for them."
        )
        return list(seen)
    windower = Windower.for_tokenizer(tokenizer, config.sequence_length, max_length)
    known = {text for example in seen for text in _texts(example["input_ids"], 1)}
    # All that was seen may be drawn again, and of random draws a part overlaps with it: twice as many leave enough.
    wanted = -(-sum(example["input_ids"].numel() for example in seen) // windower.length) + 2 * count
    drawn = draw_for(dataset, windower)(texts_of(source, tokenizer), windower, wanted, config.seed)
    fresh: list[Tensor] = []
    missing = count * windower.length
    for window in drawn:
        if missing > 0 and not any(text in known for text in _texts(window, KNOWN_BY)):
            fresh.append(window)
            missing -= window.numel()
    if not fresh:
        warn(
            f"recovery: the text holds nothing that the fits have not seen, so the {len(seen)} calibration windows "
            "serve again: give more text."
        )
        return list(seen)
    if (filled := (count * windower.length - missing) // windower.length) < count:
        warn(
            f"recovery: the text holds {filled} further windows of {windower.length} tokens, fewer than "
            f"recovery.num_samples={count}: all of them are used."
        )
    return as_examples(fresh)


def _texts(window: Tensor, step: int) -> Iterator[int]:
    """Hashes of runs of :data:`KNOWN_BY` tokens, or of all of a shorter window; a run starts at every ``step``."""
    ids = window[0].tolist()
    for start in range(0, max(len(ids) - KNOWN_BY, 0) + 1, step):
        yield hash(tuple(ids[start : start + KNOWN_BY]))
