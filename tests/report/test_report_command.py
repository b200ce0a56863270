"""``optimum-cli si report``, from a saved run to a page."""

import json
import sys
from argparse import ArgumentParser

import pytest
from support.example_reports import example
from support.models import prune, tiny

from optimum_si import CheckpointError
from optimum_si.commands.report import ReportCommand
from optimum_si.commands.si import SICommand
from optimum_si.report import Report


def report(*words: object) -> int:
    """Exit code of the command run in this process."""
    (info,) = [info for info in SICommand.SUBCOMMANDS if info.subcommand_class is ReportCommand]
    subparsers = ArgumentParser("optimum-cli si").add_subparsers()
    args = ReportCommand(subparsers, command=info).parser.parse_args([str(word) for word in words])
    try:
        args.func(args).run()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "opt-125m-2of4"
    folder.mkdir()
    example().save(folder)
    return folder


@pytest.mark.parametrize("induction", [None, {"epochs": 1}], ids=["plain", "induced"])
def test_a_run_becomes_a_table_pictures_and_a_page(tmp_path, capsys, induction):
    pruner = prune(tiny("llama"), save_dir=tmp_path / "out", induction=induction)
    assert report(tmp_path / "out") == 0
    assert pruner.report.table() in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out" / "report").iterdir()}
    assert {"index.html", "importance.png", "layers.png", "singular-values.png"} <= names
    assert ("blocks.png" in names) == (induction is not None)


def test_the_page_is_named_last_and_called_like_the_folder(saved, capsys):
    assert report(saved) == 0
    page = saved / "report" / "index.html"
    assert capsys.readouterr().out.splitlines()[-1] == f"page: {page}, with 5 pictures beside it"
    assert "<h1>opt-125m-2of4</h1>" in page.read_text()


def test_the_folder_is_called_by_its_name_from_within_it(saved, monkeypatch):
    monkeypatch.chdir(saved)
    assert report(".") == 0
    assert "<h1>opt-125m-2of4</h1>" in (saved / "report" / "index.html").read_text()


def test_output_says_where(saved, tmp_path):
    assert report(saved, "--output", tmp_path / "elsewhere") == 0
    assert (tmp_path / "elsewhere" / "index.html").is_file()
    assert not (saved / "report").exists()


def test_other_files_are_not_replaced(saved, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    assert report(saved, "--output", tmp_path / "mine") == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert (tmp_path / "mine" / "thesis.txt").is_file()


def test_no_pictures_writes_nothing(saved, capsys):
    assert report(saved, "--no-pictures") == 0
    assert capsys.readouterr().out.rstrip().endswith(example().summary())
    assert not (saved / "report").exists()


def test_json_is_all_that_is_printed(saved, capsys):
    assert report(saved, "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads(json.dumps(example().to_dict()))
    assert printed.err.startswith("\npage: ")


def test_without_matplotlib_the_table_is_printed_and_a_note(saved, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert report(saved) == 0
    printed = capsys.readouterr()
    assert example().summary() in printed.out
    assert printed.err == 'note: pictures need matplotlib: pip install "optimum-si[report]".\n'
    assert not (saved / "report").exists()


def test_a_report_of_nothing_has_no_page(tmp_path):
    Report("prune", "wanda", "50%", False).save(tmp_path)
    assert report(tmp_path) == 0
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("change", [{"new_field": 1}, {"blocks": [{"choice": "better", "layers": []}]}])
def test_a_report_of_a_newer_version_is_said_to_be_one(tmp_path, change):
    prune(tiny("opt"), "wanda", pattern="2:4", induction=None).report.save(tmp_path)
    path = tmp_path / "si_report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match="cannot be read by optimum-si .* was written by a newer version"):
        Report.load(tmp_path)


@pytest.mark.parametrize("what", ["file", "link", "page of another"])
def test_nothing_of_others_is_replaced_by_a_report(saved, capsys, what):
    place = saved / "place"
    if what == "page of another":
        place.mkdir()
        (place / "index.html").write_text("<h1>mine</h1>")
        (place / "holiday.png").write_bytes(b"x")
    else:
        (saved / "notes.txt").write_text("mine")
        place = saved / "notes.txt"
        if what == "link":
            (saved / "link").symlink_to(place)
            place = saved / "link"
    before = {file: file.read_bytes() for file in saved.rglob("*") if file.is_file()}
    assert report(saved, "--output", place) == 1
    assert "error: " in capsys.readouterr().err
    assert {file: file.read_bytes() for file in saved.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "1" + "0" * 400, "[" * 100_000])
def test_numbers_that_no_run_measured_are_refused(saved, capsys, value):
    file = saved / "si_report.json"
    file.write_text(file.read_text().replace('"seconds": 3700.0', f'"seconds": {value}'))
    assert report(saved, "--no-pictures") == 1
    assert "is damaged, or was written" in capsys.readouterr().err
