"""What Markdown, and the shell and Python in its fences, take from others: text that stays text."""

import json
import re
import shlex
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote


#: Characters that mean nothing in Markdown, in the cell of a table or in HTML.
_PLAIN = re.compile(r"[^\w \-.,:;/%()+='\"!?@^$~]", re.ASCII)
#: What may stand between backticks as it is.
_CODE = re.compile(r"[\w \-.,:;/%()+='\"!?@^$~*#{}\[\]]*")


class Raw(str):
    """Markdown of our own, which goes into a card as it is."""


def escaped(value: Any) -> Any:
    """Text as Markdown that shows it and does nothing else; what is no text, and :class:`Raw`, stays as it is."""
    if not isinstance(value, str) or isinstance(value, Raw):
        return value
    return Raw(_PLAIN.sub(_entity, _on_one_line(value)))


def code(value: str) -> Raw:
    """Text between backticks; in an HTML element where it holds what would end them."""
    text = _on_one_line(value)
    return Raw(f"`{text}`" if _CODE.fullmatch(text) and text.strip() else f"<code>{escaped(text)}</code>")


def url_path(value: str) -> Raw:
    """Text as part of an address."""
    return Raw(quote(value))


def python_string(value: str) -> Raw:
    """Text as a literal of Python, on one line."""
    return Raw(json.dumps(value))


def shell_word(value: str) -> Raw:
    """Text as one word of a shell command, on one line: a line of its own could end the fence around it."""
    if value.isprintable():
        return Raw(shlex.quote(value))
    return Raw("$'" + "".join(_in_ansi_quotes(character) for character in value) + "'")


def shell_command(words: Iterable[str]) -> Raw:
    """A command that a shell reads as these words."""
    return Raw(" ".join(map(shell_word, words)))


def _in_ansi_quotes(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _on_one_line(text: str) -> str:
    """Without what does not print: control characters, marks of direction, halves of characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def _entity(found: re.Match[str]) -> str:
    character = found[0]
    return character if character.isalnum() else f"&#{ord(character)};"
