"""Conversations: which rows hold some, and their text in the form that a tokenizer's chat template gives them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optimum_si.errors import CalibrationError

from .lazy_rows import LazyRows
from .limits import bounded


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHAT_COLUMNS = ("messages", "conversations", "conversation", "chat", "dialog")
#: Roles of ShareGPT, and what chat templates call them.
_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant"}
#: Seconds that one conversation may take: a template is a program that came with the model.
SECONDS = 10


class RenderedChat(str):
    """Text that has its special tokens in it: a tokenizer adds no others."""


def is_chat(value: Any) -> bool:
    """Whether a value is a conversation: turns with "role" and "content", or "from" and "value"."""
    return isinstance(value, (list, tuple)) and bool(value) and all(map(_is_turn, value))


def turns_of(value: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The turns of a conversation as chat templates take them."""
    if "role" in value[0]:
        # Columns of `datasets` fill keys that other turns have with None.
        return [{name: entry for name, entry in turn.items() if entry is not None} for turn in value]
    return [{"role": _ROLES.get(turn["from"], turn["from"]), "content": turn["value"]} for turn in value]


def rendered(chats: Sequence[Any], tokenizer: "PreTrainedTokenizerBase") -> Sequence[Any]:
    """Conversations as text, each when it is asked for.

    Args:
        chats: conversations; empty ones and None become "".
        tokenizer: with a chat template; a processor will do.

    Raises:
        CalibrationError: where there is no template; on access, for a conversation that it refuses.
    """
    check_template(tokenizer)
    return LazyRows(chats, lambda chat: render(chat, tokenizer))


def check_template(tokenizer: Any) -> None:
    """Raise :class:`CalibrationError` where a tokenizer, or a processor, has no chat template."""
    if not getattr(tokenizer, "chat_template", None):
        raise CalibrationError(
            "The calibration data holds conversations and the tokenizer has no chat template: give the tokenizer of "
            "an instruct model, set tokenizer.chat_template, or name a column of text as calibration.column."
        )


def render(chat: Any, tokenizer: Any) -> RenderedChat:
    """One conversation as text; "" for none."""
    if not chat:
        return RenderedChat()
    try:
        if not is_chat(chat):
            raise ValueError(f"a {type(chat).__name__} is no list of turns with role and content")
        with bounded(SECONDS, "the chat template"):
            return RenderedChat(tokenizer.apply_chat_template(turns_of(chat), tokenize=False))
    except CalibrationError:
        raise
    except Exception as error:  # templates raise whatever they like
        raise CalibrationError(
            f"A conversation of the calibration data does not fit the chat template ({' '.join(str(error).split())}): "
            "leave it out, or name a column of text as calibration.column."
        ) from error


def _is_turn(value: Any) -> bool:
    return isinstance(value, Mapping) and (
        (isinstance(value.get("role"), str) and "content" in value)
        or (isinstance(value.get("from"), str) and "value" in value)
    )
