"""The page: whole in one file, safe with any name, and what it says."""

import re
from html.parser import HTMLParser

import pytest
from support.example_reports import example

from optimum_si.report import Report, write_report


VOID = {"meta", "link", "br", "img", "input", "hr"}


class Outline(HTMLParser):
    """Notes every tag with its attributes, the text of headings, and whether tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def page(tmp_path, report: Report, name: str = "opt-125m-2of4") -> str:
    return write_report(report, tmp_path / "report", name)[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("induction", [True, False])
def test_nothing_is_asked_for(tmp_path, induction):
    text = page(tmp_path, example(induction=induction))
    for tag, attributes in Outline(text).tags:
        for name in ("src", "srcset", "href", "data", "poster", "action", "background"):
            value = attributes.get(name)
            allowed = value is None or value.startswith(("#", "data:")) or (tag == "a" and name == "href")
            assert allowed, f"<{tag} {name}={value!r}>"
    assert not re.search(r"url\((?!#)|@import|https?://(?!arxiv\.org/)", text)


def test_tags_are_closed_and_ids_are_unique_and_found(tmp_path):
    text = page(tmp_path, example())
    outline = Outline(text)
    assert not outline.open
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"|aria-labelledby="([^"]+)"', text)
    assert {one or two or three for one, two, three in used} <= set(ids)
    figures = [attributes for tag, attributes in outline.tags if tag == "figure"]
    assert all(attributes["aria-labelledby"].startswith("about-") for attributes in figures) and len(figures) == 5


def test_names_are_text(tmp_path):
    evil = '</title><script>alert("1")</script>&amp;$x$'
    report = example(prefix=f"layers.{evil}")
    report.method = report.target = report.architecture = report.version = evil
    text = page(tmp_path, report, evil)
    outline = Outline(text)
    assert [tag for tag, _ in outline.tags].count("script") == 1
    assert text.count("alert(") == text.count("&lt;script&gt;alert(")
    assert not outline.open
    assert f"layers.{evil}.3.q_proj" in "".join(outline.text)


def test_headings_and_pictures_have_words(tmp_path):
    outline = Outline(page(tmp_path, example()))
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    pictures = [attributes for _, attributes in outline.tags if attributes.get("role") == "img"]
    assert len(pictures) == 5 and all(len(attributes["aria-label"]) > 20 for attributes in pictures)
    assert [tag for tag, _ in outline.tags].count("figcaption") == 5


def test_key_figures_and_how_to_load_it(tmp_path):
    text = "".join(Outline(page(tmp_path, example())).text)
    for words in ("wanda", "2:4", "50.00%", "8.03 B", "262 k", "128 windows", "1 h 2 min", "28.6%"):
        assert words in text, words
    assert 'model = LlamaForCausalLM.from_pretrained("opt-125m-2of4")' in text


def test_without_induction_nothing_is_said_of_its_gain(tmp_path):
    text = "".join(Outline(page(tmp_path, example(induction=False))).text)
    assert "without induction" in text and "taken away" not in text.lower()


def test_no_place_on_this_machine_is_named(tmp_path):
    assert str(tmp_path) not in page(tmp_path, example())


def test_the_same_report_gives_the_same_page(tmp_path):
    assert page(tmp_path, example()) == page(tmp_path, example())


def test_every_layer_is_a_row_that_can_be_sorted(tmp_path):
    outline = Outline(page(tmp_path, example(60)))
    rows = [attributes for tag, attributes in outline.tags if tag == "th" and attributes.get("scope") == "row"]
    assert len(rows) == 420
    cells = [attributes for tag, attributes in outline.tags if tag == "td"]
    assert len(cells) == 420 * 7 and all(float(attributes["data-value"]) >= -1 for attributes in cells)
