"""Killed at any step of writing: what was there, or what is new, whole; and the next run clears up."""

import os

import pytest
from support.kills import killed_at

from optimum_si.checkpoint import save
from optimum_si.checkpoint.outputs import check_output
from optimum_si.checkpoint.save import replaced_directory


FILES = ("config.json", "model.safetensors", "onnx/model.onnx")


def fill(directory, text):
    for name in FILES:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)


def replace(out, text):
    with replaced_directory(out, overwrite=True) as directory:
        fill(directory, text)


def content(out):
    return {(out / name).read_text() for name in FILES if (out / name).is_file()}, sum(
        path.is_file() for path in out.rglob("*")
    )


@pytest.mark.parametrize("there", [True, False], ids=["replaced", "fresh"])
@pytest.mark.parametrize("exchange", [True, False], ids=["one step", "two renames"])
def test_a_kill_at_any_step_leaves_a_whole_result(tmp_path, monkeypatch, exchange, there):
    if not exchange:
        monkeypatch.setattr(save, "_exchange", lambda first, second: False)
    step, missing = 1, 0
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        out = folder / "out"
        if there:
            out.mkdir()
            fill(out, "old")
        was_killed, _ = killed_at(step, lambda out=out: replace(out, "new"))
        missing += there and not out.exists()
        if not out.exists():
            assert not (there and exchange)  # between two renames alone
            check_output(out, overwrite=True)  # as the next run begins
        if there or out.exists():
            texts, count = content(out)
            assert texts in ({"old"}, {"new"}) and count == len(FILES), step
        replace(out, "newest")
        assert content(out) == ({"newest"}, len(FILES)) and os.listdir(folder) == ["out"], step
        if not was_killed:
            break
        step += 1
    assert step > 15 and (missing > 0) == (there and not exchange)
