"""Text that every machine with Python has: the docstrings and sources of its standard library."""

import ast
import hashlib
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from optimum_si.errors import SIError


SKIPPED = {"site-packages", "dist-packages", "lib2to3", "test", "tests", "idle_test", "__pycache__"}

#: One file in so many, by the hash of its path, is held out of calibration and training.
HELD_OUT_ONE_IN = 5


def stdlib_files() -> list[Path]:
    """The sources of the standard library, in an order that mixes packages and is the same everywhere.

    Raises:
        SIError: when this Python was installed without them.
    """
    root = stdlib_root()
    files = [path for path in root.rglob("*.py") if not SKIPPED & set(path.relative_to(root).parts)]
    if not files:
        raise SIError("This Python has no sources of its standard library: run the demo with another installation.")
    return sorted(files, key=lambda path: _digest(path.relative_to(root)))


def stdlib_root() -> Path:
    """The folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def is_held_out(relative_path: Path) -> bool:
    """Whether a file is for measuring, not for calibrating or training; decided by its path alone."""
    return int(_digest(relative_path), 16) % HELD_OUT_ONE_IN == 0


def sources(held_out: bool, max_files: int | None = None) -> list[str]:
    """Whole files, those that are held out or the others."""
    return [text for path in _part(held_out)[:max_files] if (text := _read(path)).strip()]


def docstrings(held_out: bool) -> Iterator[str]:
    """Docstrings, each once, from the files that are held out or from the others; files are parsed on demand."""
    seen: set[str] = set()
    for path in _part(held_out):
        for text in docstrings_of(_read(path)):
            if text not in seen:
                seen.add(text)
                yield text


def docstrings_of(source: str) -> list[str]:
    """The docstrings of one file, cleaned of indentation; none when it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old code
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented))
    return [text for text in found if text and text.strip()]


def first_paragraph(text: str) -> str:
    """The first paragraph on one line."""
    return " ".join(text.strip().split("\n\n")[0].split())


def held_out_sentences(count: int, exclude: list[str]) -> list[str]:
    """First paragraphs of held-out docstrings that say something, each once.

    Args:
        count: number of sentences.
        exclude: docstrings whose first paragraphs are left out, such as those calibrated on.
    """
    seen = {first_paragraph(text) for text in exclude}
    chosen: list[str] = []
    for text in docstrings(held_out=True):
        sentence = first_paragraph(text)
        if sentence not in seen and 5 <= len(sentence.split()) <= 60:
            seen.add(sentence)
            chosen.append(sentence)
            if len(chosen) == count:
                break
    return chosen


def calibration_docstrings(characters: int) -> list[str]:
    """Docstrings of files that are not held out, at least so many characters of them where there are as many."""
    chosen: list[str] = []
    for text in docstrings(held_out=False):
        chosen.append(text)
        characters -= len(text)
        if characters <= 0:
            break
    return chosen


def _part(held_out: bool) -> list[Path]:
    root = stdlib_root()
    return [path for path in stdlib_files() if is_held_out(path.relative_to(root)) == held_out]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _digest(relative_path: Path) -> str:
    return hashlib.md5(relative_path.as_posix().encode(), usedforsecurity=False).hexdigest()
