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
