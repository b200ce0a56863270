"""English text for the real model: enough of it, clean, and none of it on both sides."""

import re

import pytest

from optimum_si.demo import prose
from optimum_si.errors import CalibrationError


#: Characters of a token of English, at most: what is counted below in characters is at least as many tokens.
CHARACTERS = 5

needs_gensim = pytest.mark.skipif(prose.find_spec("gensim") is None, reason="needs the extra realmodels")

MARKUP = """\
{{Infobox|name={{nested|a}}|text=left out}}
'''Anarchism''' is a [[philosophies|philosophy]] that advocates [[self-rule|self-governed]] societies{{sfn|X}} about \
{{convert|12|km|mi}} wide (; from Greek), which is long enough to be a paragraph.<ref name="a">Left [[out]].</ref>
[[File:picture.jpg|thumb|A caption with a [[link]], long enough to be a paragraph of its own if it were no caption.]]
* A list item that is long enough to be a paragraph as well, were it not a list item, and nothing but a list item.
A short line.
{| class="wikitable"
| a cell that is long enough to be a paragraph of its own if it were not a cell of a table, which is what it is here
|}
== See also ==
What follows the article is left out, however long it may be: this one is long enough to be a paragraph of its own.
"""


def test_of_markup_the_prose_is_left():
    assert prose.plain_text(MARKUP) == [
        "Anarchism is a philosophy that advocates self-governed societies about 12 km wide (from Greek), which is "
        "long enough to be a paragraph."
    ]


@needs_gensim
def test_there_is_enough_to_calibrate_recover_and_measure():
    calibration, tested, other = prose.calibration_text(), prose.test_text(), prose.other_text()
    assert sum(map(len, calibration)) > 116_000 * CHARACTERS
    assert sum(map(len, tested)) > 25_000 * CHARACTERS and sum(map(len, other)) > 25_000 * CHARACTERS
    assert not any(re.search(r"\{\{|\[\[|''|<ref", text) for text in (*calibration, *tested))


@needs_gensim
def test_no_article_and_no_paragraph_is_on_both_sides():
    titles = {
        tested: {title for title, _ in prose._passages() if prose._is_tested(title) == tested} for tested in (0, 1)
    }
    assert len(titles[0]) > 50 and len(titles[1]) > 15
    paragraphs = [{p for text in texts for p in text.split("\n\n")} for texts in (
        prose.calibration_text(), prose.test_text(), prose.other_text()
    )]  # fmt: skip
    assert not paragraphs[0] & paragraphs[1] and not paragraphs[2] & (paragraphs[0] | paragraphs[1])


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    prose._passages.cache_clear()
    monkeypatch.setattr(prose, "find_spec", lambda name: None)
    for texts in (prose.calibration_text, prose.test_text, prose.other_text):
        with pytest.raises(CalibrationError, match=r"optimum-si\[realmodels\]"):
            texts()
