"""Names in a report may be anybody's: they are shown, and do nothing, on the page, in pictures and on a terminal."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from support.example_reports import example

from optimum_si.report.catalog import pictures
from optimum_si.report.page import page
from optimum_si.report.style import styled
from optimum_si.report.text import printable


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</title><script>alert(1)</script>",
    "--><script>alert(1)</script><!--",
    "]]><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "'; alert(1); //",
    "$\\frac{1}{0}$ <b>",
    "{{ 7 * 7 }}{% include 'x' %}",
    "a\x1b]0;owned\x07\x1b[2J\x1b[31m",
    "abc\u202etxt.exe\u2066",
    "a\r\nb\x00\x08c",
]


def hostile_report(text):
    report = example(blocks=2)
    blocks = [
        replace(
            block,
            name=f"{text}.{index}",
            layers=[replace(layer, name=f"{layer.name}{text}") for layer in block.layers],
        )
        for index, block in enumerate(report.blocks)
    ]
    report.blocks[:] = blocks
    report.method = report.target = text
    report.steps = [text]
    report.architecture = text
    return report


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.scripts, self.text = [], 0, []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, tuple(name for name, _ in attributes)))

    def handle_data(self, data):
        self.text.append(data)


def tags_of(html):
    parser = Tags()
    parser.feed(html)
    return parser


@pytest.mark.parametrize("text", HOSTILE)
def test_a_page_has_the_same_elements_whatever_names_hold(text):
    def made(name):
        report = hostile_report(name)
        with styled():
            return tags_of(page(report, name, pictures(report)))

    harmless, found = made("harmless"), made(text)
    kinds = {tag for tag, _ in harmless.found}
    assert {tag for tag, _ in found.found} <= kinds
    assert sum(tag == "script" for tag, _ in found.found) == sum(tag == "script" for tag, _ in harmless.found)
    handlers = [name for _, names in found.found for name in names if name.startswith("on")]
    assert not handlers


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_gets_no_control_characters(text):
    report = hostile_report(text)
    shown = report.table() + report.summary()
    assert all(character in "\n\t" or character.isprintable() for character in shown)


def test_what_does_not_print_is_shown_as_an_escape_and_the_rest_as_it_is():
    assert printable("\x1b[2J \u202e é 日本 \n\ttab \udc80") == "\\x1b[2J \\u202e é 日本 \n\ttab \\udc80"
