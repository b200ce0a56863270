"""What a model reads: the names of its inputs, and the processor that makes them of images and sounds."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from optimum_si.errors import CalibrationError

from .media import IMAGES, SOUNDS


if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXT = "text"
#: Inputs of each kind.
INPUTS = {
    TEXT: frozenset({"input_ids"}),
    IMAGES: frozenset({"pixel_values", "pixel_values_videos", "flattened_patches"}),
    SOUNDS: frozenset({"input_values", "input_features", "audio_values", "input_audio_embeds"}),
}
#: What goes along with inputs, and is none by itself.
_BESIDE = frozenset({"attention_mask", "decoder_attention_mask", "labels", "token_type_ids", "position_ids"})
#: What a model is to answer; others have "label" in their names.
_ANSWERS = frozenset({"start_positions", "end_positions"})
#: What an input takes, in words.
_WORDS = {TEXT: "text, or token ids", IMAGES: "images", SOUNDS: "sounds"}


def _nothing() -> None:
    return None


@dataclass(frozen=True, eq=False)
class Reader:
    """What is known of a model; of the default one nothing is, and it reads everything.

    Args:
        name: of its class, for messages.
        main_input: name of its main input.
        inputs: all that its forward takes by name; empty where that is not known.
        load: gives its processor, or None where there is none; called when one is needed.
        decodes: whether a decoder of its own goes with what it reads.
    """

    name: str = "the model"
    main_input: str = "input_ids"
    inputs: frozenset[str] = field(default=frozenset())
    load: Callable[[], Any] = _nothing
    decodes: bool = True

    @classmethod
    def of(cls, model: "PreTrainedModel", load: Callable[[], Any] = _nothing) -> Self:
        """Of a model, with what loads its processor."""
        names = frozenset(inspect.signature(model.forward).parameters)
        main = model.main_input_name
        decodes = bool(getattr(model.config, "is_encoder_decoder", False))
        return cls(type(model).__name__, main, names if main in names else frozenset(), load, decodes)

    @cached_property
    def processor(self) -> Any:
        """The model's processor; None where there is none."""
        return self.load()

    @property
    def numbers(self) -> frozenset[str]:
        """Inputs that may be one number for each example: all that its forward takes by name, but for answers."""
        return frozenset(name for name in self.inputs - _ANSWERS if "label" not in name)

    def reads(self, kind: str) -> bool:
        """Whether the model takes :data:`TEXT`, :data:`IMAGES` or :data:`SOUNDS`."""
        return not self.inputs or bool(self.inputs & INPUTS[kind])

    @property
    def wants(self) -> str:
        """What the model reads, in words."""
        words = ", ".join(_WORDS[kind] for kind in INPUTS if self.inputs and self.reads(kind))
        return f"{self.main_input!r} ({words})" if words else repr(self.main_input)

    def refuse(self, what: str) -> CalibrationError:
        """An error for data of a kind that the model does not read."""
        return CalibrationError(
            f"The calibration data holds {what}, and {self.name} reads {self.wants}: give data of that kind, or name "
            "the column that holds it as calibration.column."
        )

    def check(self, example: Mapping[str, Tensor]) -> None:
        """Raise :class:`CalibrationError` for an example of which the model takes nothing."""
        # A number goes along with inputs too.
        given = [name for name, value in example.items() if name not in _BESIDE and value.ndim > 1]
        if self.inputs and not self.inputs.intersection(given):
            raise self.refuse(", ".join(map(repr, given)) or "no inputs")
