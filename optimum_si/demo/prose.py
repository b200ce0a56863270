"""English prose without a download from a hub: what gensim's package holds for its own tests, articles and news.

Articles of Wikipedia (2 MB without their markup, CC BY-SA) calibrate and measure, each of them for one of both; news
(360 kB, of another author, year and kind) measure alone.
"""

import bz2
import hashlib
import html
import re
import xml.etree.ElementTree as ElementTree
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from optimum_si.errors import CalibrationError


_ARTICLES = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
_NEWS = "lee_background.cor"

#: One article in so many, by the hash of its title, is for measuring.
_TESTED_ONE_IN = 5
#: Passages end with the paragraph that brings them to so many characters, about 500 tokens: whole articles would let
#: a short calibration see two of them.
_PASSAGE = 2000
#: A paragraph of fewer characters is a caption or what is left of a table.
_PARAGRAPH = 120

_REMOVED = re.compile(r"<!--.*?-->|<(ref|math|gallery|timeline|table|code|pre)\b[^>/]*>.*?</\1>|<[^>]*>", re.S | re.I)
#: Templates that stand for words in a sentence.
_WORDS = (
    (re.compile(r"\{\{(?:convert|cvt)\|([^|{}]*)\|([^|{}]*)[^{}]*\}\}", re.I), r"\1 \2"),
    (re.compile(r"\{\{(?:lang\|[^|{}]*|nowrap|transl\|[^|{}]*)\|([^|{}]*)\}\}", re.I), r"\1"),
)
_INNERMOST_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}|\{\|(?:(?!\{\||\|\}).)*\|\}", re.S)
_MEDIA = re.compile(r"\[\[(?:File|Image|Category|[a-z-]{2,12}):(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", re.I)
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_ADDRESS = re.compile(r"\[https?://\S+ ?([^\]]*)\]")
_BROKEN = re.compile(r"\{\{|\}\}|\[\[|\]\]")
_LAST_SECTIONS = re.compile(
    r"^==+ *(see also|references|notes|external links|further reading|bibliography)", re.I | re.M
)


def calibration_text() -> list[str]:
    """Passages of articles to calibrate on and to recover with, mixed, about 400,000 tokens.

    Raises:
        CalibrationError: when gensim is not installed.
    """
    return [passage for title, passage in _passages() if not _is_tested(title)]


def test_text() -> list[str]:
    """Passages of the other articles, mixed, about 100,000 tokens.

    Raises:
        CalibrationError: when gensim is not installed.
    """
    return [passage for title, passage in _passages() if _is_tested(title)]


def other_text() -> list[str]:
    """News, one to an item, in the file's order, about 80,000 tokens.

    Raises:
        CalibrationError: when gensim is not installed.
    """
    lines = _file(_NEWS).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def plain_text(markup: str) -> list[str]:
    """The paragraphs of prose in an article's markup, without lists, tables, references and what follows the end."""
    if end := _LAST_SECTIONS.search(markup):
        markup = markup[: end.start()]
    markup = _REMOVED.sub("", html.unescape(markup))
    for pattern, words in _WORDS:
        markup = pattern.sub(words, markup)
    for pattern in (_INNERMOST_TEMPLATE, _MEDIA):
        while (shorter := pattern.sub("", markup)) != markup:
            markup = shorter
    markup = _ADDRESS.sub(r"\1", _LINK.sub(r"\1", markup))
    lines = [" ".join(re.sub(r"'{2,}", "", line).replace("\xa0", " ").split()) for line in markup.splitlines()]
    lines = [re.sub(r" ?\([\s,;]*\)", "", re.sub(r"\([\s,;]+", "(", line)) for line in lines]
    return [
        line for line in lines if len(line) >= _PARAGRAPH and line[0] not in "*#:;|!=" and not _BROKEN.search(line)
    ]


@cache
def _passages() -> tuple[tuple[str, str], ...]:
    """(title of the article, passage), in an order that mixes articles and is the same everywhere."""
    found = []
    with bz2.open(_file(_ARTICLES)) as file:
        space = ""
        title = ""
        for _, element in ElementTree.iterparse(file):
            space, _, tag = element.tag.rpartition("}")
            if tag == "title":
                title = element.text or ""
            elif tag == "text":
                found += [(title, passage) for passage in _cut(plain_text(element.text or ""))]
                element.clear()
    return tuple(sorted(found, key=lambda pair: _digest(pair[1])))


def _cut(paragraphs: list[str]) -> list[str]:
    passages, current = [], ""
    for paragraph in paragraphs:
        current = f"{current}\n\n{paragraph}" if current else paragraph
        if len(current) >= _PASSAGE:
            passages.append(current)
            current = ""
    return [*passages, current] if current else passages


def _file(name: str) -> Path:
    # Found without an import of gensim, which takes seconds.
    found = find_spec("gensim")
    for folder in (found and found.submodule_search_locations) or []:
        if (file := Path(folder, "test", "test_data", name)).is_file():
            return file
    raise CalibrationError(
        f'The English texts lie in the package gensim, and {name} is not there: pip install "optimum-si[realmodels]".'
    )


def _is_tested(title: str) -> bool:
    return int(_digest(title), 16) % _TESTED_ONE_IN == 0


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
