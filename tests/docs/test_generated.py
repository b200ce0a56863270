"""What the documentation takes from the code is as the code has it."""

import runpy
from pathlib import Path

import pytest


DOCS = Path(__file__).parents[2] / "docs"
PAGES = runpy.run_path(str(DOCS / "generate.py"))["generated"]()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_pages_are_up_to_date(page):
    current = page.is_file() and page.read_text(encoding="utf-8") == PAGES[page]
    assert current, f"docs/{page.name} is not what the code says: run `python docs/generate.py`"


@pytest.mark.slow
def test_the_table_of_classes_is_up_to_date():
    classes = runpy.run_path(str(DOCS / "model_classes.py"))
    assert classes["PAGE"].read_text(encoding="utf-8") == classes["page"](), "run `python docs/model_classes.py`"
