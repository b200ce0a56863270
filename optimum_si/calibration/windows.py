"""Texts -> token windows. A draw takes documents, a windower, a number of windows and a seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from optimum_si.errors import CalibrationError

from .chats import RenderedChat


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Windower:
    """How a tokenizer's windows look: their length and what frames them.

    Encoders of the BERT kind have only ever seen [CLS] text [SEP], so their windows are framed like that, whatever
    documents the text comes from; other tokenizers put their own special tokens around every document.
    """

    tokenizer: "PreTrainedTokenizerBase"
    length: int
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()

    @classmethod
    def for_tokenizer(
        cls, tokenizer: "PreTrainedTokenizerBase", sequence_length: int, max_length: int | None
    ) -> "Windower":
        """The longest windows that the request, the model and the tokenizer allow.

        Raises:
            CalibrationError: when the frame leaves no room for text.
        """
        # Tokenizers that know no limit say 1e30, some say nothing or 0.
        limits = (sequence_length, max_length, getattr(tokenizer, "model_max_length", None))
        length = int(min(limit for limit in limits if limit is not None and limit > 0))
        if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
            return cls(tokenizer, length)
        if length <= 2:
            raise CalibrationError(
                f"A window of {length} tokens holds nothing but {tokenizer.cls_token} and {tokenizer.sep_token}: "
                "raise calibration.sequence_length."
            )
        return cls(tokenizer, length, (tokenizer.cls_token_id,), (tokenizer.sep_token_id,))

    @property
    def text_length(self) -> int:
        """Tokens of a window that are text."""
        return self.length - len(self.prefix) - len(self.suffix)

    def encode(self, text: str | None) -> list[int]:
        """Token ids of one document; none for an empty one, which would add nothing but special tokens."""
        if text is not None and not isinstance(text, str):
            raise CalibrationError(
                f"the text column of the calibration data holds a {type(text).__name__}: give strings, or name "
                "another column as calibration.column."
            )
        if not text or text.isspace():
            return []
        # verbose=False: documents are meant to be longer than the model's limit, so no warning about that.
        special = not self.prefix and not isinstance(text, RenderedChat)
        return self.tokenizer(well_formed(text), add_special_tokens=special, verbose=False)["input_ids"]

    def window(self, ids: Sequence[int], start: int) -> Tensor:
        """One full window, int64 [1, length], whose text starts at ``start``."""
        text = ids[start : start + self.text_length]
        return torch.tensor([[*self.prefix, *text, *self.suffix]])


def well_formed(text: str) -> str:
    """Text without halves of characters, which JSON can hold and no tokenizer takes; they become U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def packed_windows(documents: Sequence[str | None], windower: Windower, count: int, seed: int) -> list[Tensor]:
    """Shuffle the documents, join their tokens and cut full windows; at most ``count``, at random when there are more.

    Returns:
        int64 tensors [1, windower.length].

    Raises:
        CalibrationError: when the tokens do not fill one window.
    """
    generator = random.Random(seed)
    ids: list[int] = []
    for index in generator.sample(range(len(documents)), len(documents)):
        ids.extend(windower.encode(documents[index]))
        if len(ids) >= count * windower.text_length:
            break
    _check_fills_one_window(len(ids), windower.text_length)
    starts: Sequence[int] = range(0, len(ids) - windower.text_length + 1, windower.text_length)
    if len(starts) > count:
        starts = generator.sample(starts, count)
    return [windower.window(ids, start) for start in starts]


def framed_documents(documents: Sequence[str | None], windower: Windower, count: int, seed: int) -> list[Tensor]:
    """Shuffled documents, each framed by itself, until they hold the tokens of ``count`` full windows.

    This is how encoders are used. Windows packed from many documents have few [CLS] and [SEP] and mostly positions
    that short texts never reach: a sentence encoder calibrated on them loses about a fifth more.

    Returns:
        int64 tensors [1, at most windower.length]; a longer document gives several, at random when there are too many.

    Raises:
        CalibrationError: when the tokens do not fill one window.
    """
    generator = random.Random(seed)
    windows: list[Tensor] = []
    missing = count * windower.length
    for index in generator.sample(range(len(documents)), len(documents)):
        ids = windower.encode(documents[index])
        starts: Sequence[int] = range(0, len(ids), windower.text_length)
        if len(ids) > missing:
            starts = generator.sample(starts, len(starts))
        for start in starts:
            if missing > 0:
                windows.append(windower.window(ids, start))
                missing -= windows[-1].numel()
        if missing <= 0:
            break
    _check_fills_one_window(sum(window.numel() for window in windows), windower.length)
    return windows


def windows_at_random_starts(
    documents: Sequence[str | None], windower: Windower, count: int, seed: int
) -> list[Tensor]:
    """``count`` windows at random places of one token stream, the draw of SparseGPT and Wanda for wikitext2.

    Returns:
        int64 tensors [1, windower.length]; a seed gives the same places as in the published code.

    Raises:
        CalibrationError: when the stream does not fill one window.
    """
    generator = random.Random(seed)
    ids = [token for document in documents for token in windower.encode(document)]
    _check_fills_one_window(len(ids), windower.text_length)
    # The published bound, which never draws the last possible start, kept for the same windows.
    last = max(0, len(ids) - windower.text_length - 1)
    return [windower.window(ids, generator.randint(0, last)) for _ in range(count)]


def one_window_per_document(
    documents: Sequence[str | None], windower: Windower, count: int, seed: int
) -> list[Tensor]:
    """``count`` times a random place of a random document that is longer than a window, Wanda's draw for c4.

    Returns:
        int64 tensors [1, windower.length]; a seed gives the same places as in the published code.

    Raises:
        CalibrationError: when no document is longer than a window.
    """
    generator = random.Random(seed)
    too_short: set[int] = set()
    windows: list[Tensor] = []
    while len(windows) < count:
        if len(too_short) == len(documents):
            raise CalibrationError(
                f"None of the {len(documents)} documents is longer than the {windower.text_length} tokens of one "
                "window: lower calibration.sequence_length."
            )
        index = generator.randint(0, len(documents) - 1)
        if index in too_short:
            continue
        ids = windower.encode(documents[index])
        if len(ids) > windower.text_length:
            windows.append(windower.window(ids, generator.randint(0, len(ids) - windower.text_length - 1)))
        else:
            too_short.add(index)
    return windows


def _check_fills_one_window(tokens: int, needed: int) -> None:
    if tokens < needed:
        raise CalibrationError(
            f"The calibration text has {tokens} tokens and one window needs {needed}: give more text or lower "
            "calibration.sequence_length."
        )
