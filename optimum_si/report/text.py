"""Text of others on a terminal: names in files that somebody else made may hold anything."""


def printable(text: str) -> str:
    """The text with every character that a terminal would act on, or not show, written as an escape; lines stay.

    Escape sequences move the cursor, hide what was printed and answer in the user's name; marks for writing from right
    to left show a name as another one.
    """
    return text if text.isprintable() else "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
