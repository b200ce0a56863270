"""Images and sounds -> examples, through the model's own processor."""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from optimum_si.errors import CalibrationError, reason_of

from .chats import check_template, render
from .columns import Columns
from .limits import no_more_memory
from .media import IMAGES, SOUNDS, read_images, read_sound, resampled
from .reader import TEXT, Reader
from .rows import Source


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


#: Bytes that a processor may take for a row beside those in use; and addresses for the stack and the arena of each
#: thread that its libraries may start meanwhile.
_MOST_MEMORY = (1 << 31) + (os.cpu_count() or 1) * (160 << 20)


def processed_rows(
    source: Source, reader: Reader, tokenizer: "PreTrainedTokenizerBase | None", max_length: int | None
) -> Iterator[dict[str, Tensor]]:
    """One row of a model's inputs for each row of a source, batched by itself.

    Args:
        source: of images or sounds, with text or conversations that go along where the model reads these.
        reader: of the model.
        tokenizer: for text, where the processor has none of its own.
        max_length: longest text.

    Raises:
        CalibrationError: without a processor, and for what it refuses.
    """
    processor = reader.processor
    columns = source.columns
    if processor is None:
        held = ", ".join(
            f"{kind} (column {name!r})" for kind, name in ((IMAGES, columns.images), (SOUNDS, columns.sounds)) if name
        )
        raise CalibrationError(
            f"The calibration data holds {held}, {reader.name} reads {reader.wants}, and there is no processor that "
            "makes these of it: load the model from a folder that has its processor, give one "
            "(SIPruner(model, processor=AutoProcessor.from_pretrained(...))), or give tensors named "
            f"{reader.main_input!r}."
        )
    call = _Call(processor, reader, columns, tokenizer, max_length)
    for index, row in enumerate(source.rows):
        yield call(row, index)


class _Call:
    """How a processor is called with a row.

    Args: as for :func:`processed_rows`.
    """

    def __init__(
        self, processor: Any, reader: Reader, columns: Columns, tokenizer: Any, max_length: int | None
    ) -> None:
        self.processor, self.reader, self.columns = processor, reader, columns
        self.tokenizer = getattr(processor, "tokenizer", None) or tokenizer
        self.max_length = max_length
        self.joins = hasattr(processor, "tokenizer") and reader.reads(TEXT)
        #: Where text marks the places of images or sounds.
        self.marks = {
            kind: mark
            for kind, name in ((IMAGES, "image_token"), (SOUNDS, "audio_token"))
            if isinstance(mark := getattr(processor, name, None), str)
        }

    def __call__(self, row: Any, index: int) -> dict[str, Tensor]:
        try:
            if not isinstance(row, Mapping):
                raise TypeError(f"it is a {type(row).__name__}, and the first one has columns")
            with no_more_memory(_MOST_MEMORY):  # the processor's settings came with the model
                values = self._joined(row) if self.joins else self._apart(row)
        except CalibrationError as error:
            raise CalibrationError(f"Row {index} of the calibration data: {error}") from error
        except Exception as error:  # processors raise whatever they like
            reason = reason_of(error)
            raise CalibrationError(
                f"Row {index} of the calibration data: {type(self.processor).__name__} cannot read it: {reason}"
            ) from error
        found = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        if self.reader.inputs:
            found = {name: value for name, value in found.items() if name in self.reader.inputs}
        if "input_ids" not in found and self.reader.main_input == "input_ids":
            raise CalibrationError(
                f"The calibration data holds {' and '.join(self._kinds)} alone, and {self.reader.name} reads text "
                "with them: add a column of text, such as 'text' or 'caption', or of conversations."
            )
        return found

    @property
    def _kinds(self) -> list[str]:
        return [kind for kind in (IMAGES, SOUNDS) if getattr(self.columns, kind) is not None]

    def _joined(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """By a processor that takes text with the rest, and marks the places of images and sounds in it."""
        arguments: dict[str, Any] = {"return_tensors": "pt"}
        if self.columns.images is not None and row[self.columns.images] is not None:  # some rows are text alone
            arguments["images"] = read_images(row[self.columns.images])
        if self.columns.sounds is not None:
            arguments["audio"], arguments["sampling_rate"] = self._sound(row)
        text = self._text(row, len(arguments.get("images", ())))
        if text is None:
            return self._apart(row)
        if not self.marks and self.max_length is not None:
            arguments |= {"truncation": True, "max_length": self.max_length}
        return dict(self.processor(text=text, **arguments))

    def _text(self, row: Mapping[str, Any], images: int) -> str | None:
        """What goes along; None for nothing, or for marks alone where the processor has some."""
        if self.columns.chat is not None and row[self.columns.chat]:
            check_template(self._with_template())
            return render(row[self.columns.chat], self._with_template())
        text = "" if self.columns.text is None else row[self.columns.text] or ""
        counts = {IMAGES: images, SOUNDS: int(self.columns.sounds is not None)}
        missing = {kind: mark for kind, mark in self.marks.items() if counts[kind] and mark not in text}
        if not missing:
            return text or None
        if (templated := self._with_template()) is not None:
            parts = [{"type": "image" if kind == IMAGES else "audio"} for kind in missing for _ in range(counts[kind])]
            content = [*parts, *([{"type": "text", "text": text}] if text else [])]
            return str(templated.apply_chat_template([{"role": "user", "content": content}], tokenize=False))
        return "".join(mark * counts[kind] for kind, mark in missing.items()) + text

    def _with_template(self) -> Any:
        """The processor or the tokenizer, whichever has a chat template."""
        parts = (self.processor, self.tokenizer)
        return next((part for part in parts if getattr(part, "chat_template", None)), None)

    def _apart(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """By the parts of a processor, each by itself."""
        values: dict[str, Any] = {}
        if self.columns.images is not None:
            images = getattr(self.processor, "image_processor", self.processor)
            values |= images(images=read_images(row[self.columns.images]), return_tensors="pt")
        if self.columns.sounds is not None:
            samples, rate = self._sound(row)
            # The mask of a spectrogram says what is silence behind a shorter sound.
            options = {"return_attention_mask": True} if self._spectrogram else {}
            values |= self._extractor(samples, sampling_rate=rate, return_tensors="pt", **options)
        text = None if self.columns.text is None else row[self.columns.text]
        if self.columns.chat is not None and self._with_template() is not None:
            text = render(row[self.columns.chat], self._with_template())
        if text and self.tokenizer is not None and self.reader.reads(TEXT):
            limit = {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
            values |= self.tokenizer(text, return_tensors="pt", **limit)
        return values

    @property
    def _extractor(self) -> Any:
        return getattr(self.processor, "feature_extractor", self.processor)

    @property
    def _spectrogram(self) -> bool:
        return "input_features" in getattr(self._extractor, "model_input_names", ())

    def _sound(self, row: Mapping[str, Any]) -> tuple[Any, int]:
        """Samples at the rate that the processor takes."""
        value = row[self.columns.sounds or ""]
        samples, rate = read_sound(value[0] if isinstance(value, list) else value)
        wanted = int(getattr(self._extractor, "sampling_rate", rate) or rate)
        return resampled(samples, rate, wanted), wanted
