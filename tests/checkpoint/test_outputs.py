"""Only what looks like a result is ever replaced, and never what a run reads, a home, or a working directory."""

import os
from pathlib import Path

import pytest

from optimum_si import CheckpointError
from optimum_si.checkpoint import outputs
from optimum_si.checkpoint.outputs import CONFIGS, OWN_FILES, check_output


def fill(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize("names", [*((name,) for name in OWN_FILES), *((name, "x.safetensors") for name in CONFIGS)])
def test_a_result_a_checkpoint_or_an_export_may_be_replaced(tmp_path, names):
    assert check_output(fill(tmp_path / "out", *names, "note.txt"), overwrite=True) == tmp_path / "out"


@pytest.mark.parametrize(
    "names",
    [
        ("thesis.tex",),
        ("config.json",),  # of any program
        ("model.safetensors",),
        ("index.html", "style.css"),
        (".bashrc", ".ssh"),
        ("si_report.json", "model.safetensors", ".git"),
    ],
    ids=str,
)
def test_anything_else_stays_and_the_message_says_what_would_do(tmp_path, names):
    folder = fill(tmp_path / "out", *names)
    with pytest.raises(CheckpointError, match="does not look like a result.*si_report.json.*empty it yourself"):
        check_output(folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_an_empty_folder_needs_no_overwriting(tmp_path):
    (tmp_path / "out").mkdir()
    check_output(tmp_path / "out", overwrite=False)
    check_output(tmp_path / "new" / "deeper", overwrite=False)


@pytest.mark.parametrize("where", ["", "..", "../.."])
def test_a_home_and_what_holds_it_are_never_replaced(tmp_path, monkeypatch, where):
    home = fill(tmp_path / "a" / "home", "config.json", "model.safetensors")
    fill(tmp_path / "a", "config.json", "model.safetensors")
    fill(tmp_path, "config.json", "model.safetensors")
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(CheckpointError, match="home directory"):
        check_output(home / where, overwrite=True)
    check_output(fill(home / "out", "config.json", "model.safetensors"), overwrite=True)


def test_nor_are_homes_of_others(tmp_path, monkeypatch):
    other = fill(tmp_path / "other", "config.json", "model.safetensors")
    monkeypatch.setattr(outputs, "_homes", lambda: {other})
    with pytest.raises(CheckpointError, match="home directory"):
        check_output(other, overwrite=True)


def test_the_homes_of_the_system_are_known():
    assert {Path.home().resolve(), Path(os.path.expanduser("~root")).resolve()} <= outputs._homes()


@pytest.mark.parametrize("where", [".", "..", "link"])
def test_the_working_directory_is_not_replaced_whatever_it_is_called(tmp_path, monkeypatch, where):
    work = fill(tmp_path / "up" / "work", "config.json", "model.safetensors")
    (tmp_path / "link").symlink_to(work)
    monkeypatch.chdir(work)
    with pytest.raises(CheckpointError, match="working directory"):
        check_output(tmp_path / "link" if where == "link" else where, overwrite=True)


def test_a_mount_point_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(CheckpointError, match="mount point"):
        check_output(fill(tmp_path / "out", "si_report.json"), overwrite=True)


@pytest.mark.parametrize("source", ["model", "model/weights.gguf", "data/text.txt", "data/*.txt", "data", "link"])
def test_what_a_run_reads_is_not_replaced(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    root = fill(tmp_path / "all", "config.json", "model.safetensors")
    fill(root / "model", "config.json", "weights.gguf")
    fill(root / "data", "text.txt")
    (root / "link").symlink_to(root / "model")
    target = root / source.split("/")[0]
    fill(target.resolve(), "config.json", "model.safetensors")
    for output in (target, root):
        with pytest.raises(CheckpointError, match="this run reads"):
            check_output(output, overwrite=True, sources=["org/name", None, str(root / source)])
    check_output(fill(root / "model" / "onnx", "si_onnx.json"), overwrite=True, sources=[str(root / "model")])


@pytest.mark.parametrize(
    "source", ["facebook/opt-125m", "", None, "a\0b", "x" * 5000, ["text"], 3], ids=lambda value: repr(value)[:20]
)
def test_what_is_no_local_path_is_passed_over(tmp_path, source):
    check_output(tmp_path / "out", overwrite=True, sources=[source])


def test_a_file_a_dead_link_and_a_file_above_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "dead").symlink_to(tmp_path / "nothing")
    for output, said in (("file", "is a file"), ("dead", "link to nothing"), ("file/out", "is a file")):
        with pytest.raises(CheckpointError, match=said):
            check_output(tmp_path / output, overwrite=True)


@pytest.mark.parametrize("place", [".git", "sub/.git", "sub/deeper/.git"])
def test_a_repository_inside_is_never_lost(tmp_path, place):
    folder = fill(tmp_path / "out", "si_report.json")
    (folder / place).mkdir(parents=True)
    with pytest.raises(CheckpointError, match="does not look like a result"):
        check_output(folder, overwrite=True)


def test_nor_is_a_bare_one(tmp_path):
    folder = fill(tmp_path / "out", "si_report.json", "HEAD")
    for name in ("objects", "refs"):
        (folder / name).mkdir()
    with pytest.raises(CheckpointError, match="does not look like a result"):
        check_output(folder, overwrite=True)


def test_a_link_to_a_mount_point_is_one(tmp_path, monkeypatch):
    real = fill(tmp_path / "real", "si_report.json")
    (tmp_path / "link").symlink_to(real)
    ismount = os.path.ismount
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == real or ismount(path))
    with pytest.raises(CheckpointError, match="mount point"):
        check_output(tmp_path / "link", overwrite=True)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800", "la/x"], ids=["nul", "half", "circle"])
def test_what_is_no_path_is_one_line(tmp_path, name):
    (tmp_path / "la").symlink_to(tmp_path / "lb")
    (tmp_path / "lb").symlink_to(tmp_path / "la")
    with pytest.raises(CheckpointError, match="give"):
        check_output(tmp_path / name, overwrite=True)


def test_a_working_directory_that_is_gone_is_nothing_to_protect(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    check_output(tmp_path / "out", overwrite=True)
