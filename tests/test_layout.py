"""The package stays within sight: short files, few modules at its top."""

from pathlib import Path

import optimum_si


PACKAGE = Path(optimum_si.__file__).parent
SOURCES = [file for file in PACKAGE.rglob("*") if file.suffix in (".py", ".cpp", ".h", ".jinja")]


def test_no_file_is_longer_than_two_screens_can_hold_in_mind():
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES}
    assert not {str(file.relative_to(PACKAGE)): length for file, length in lengths.items() if length > 300}


def test_the_top_level_reads_at_a_glance():
    assert {file.stem for file in PACKAGE.glob("*.py")} == {"__init__", "errors", "pruner", "version", "warnings"}


def test_every_folder_says_what_it_is_for():
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    for folder in folders:
        assert (folder / "__init__.py").read_text(encoding="utf-8").lstrip().startswith('"""'), folder
