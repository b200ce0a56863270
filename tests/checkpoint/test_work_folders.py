"""Folders that runs work in: a dead run's are told from a live one's, and what a kill left is healed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from optimum_si import CheckpointError
from optimum_si.checkpoint import work_folders
from optimum_si.checkpoint.outputs import check_output
from optimum_si.checkpoint.save import replaced_directory


def contents(directory):
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


LIVES = """
import sys, time
from pathlib import Path
from optimum_si.checkpoint.work_folders import work_folder
print(work_folder(Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


def work_folder_of_another(target):
    """A folder that another process works in, and that process."""
    process = subprocess.Popen([sys.executable, "-c", LIVES, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return Path(process.stdout.readline().strip()), process


@pytest.mark.parametrize("name", ["out", "out*", "[out]", "out.99999", "x" * 200])
def test_what_a_killed_run_left_is_removed_and_what_a_running_one_writes_is_not(tmp_path, name):
    target, other = tmp_path / name, tmp_path / "out"
    folders = [work_folder_of_another(place) for place in (target, target, other)]
    (left, dead), (living, alive), (others, stranger) = folders
    try:
        dead.kill()
        stranger.kill()
        dead.wait()
        stranger.wait()
        with replaced_directory(target) as directory:
            (directory / "config.json").write_text("new")
        assert not left.exists() and living.exists()
        assert others.exists() == (name != "out")  # left by a run of another output
    finally:
        for _, process in folders:
            process.kill()
            process.wait()


def test_a_number_that_another_process_has_now_is_not_its_owner(tmp_path):
    target = tmp_path / "out"
    own = work_folders.work_folder(target)
    machine, process, started = re.search(r"-(\w{8})-(\d+)-(\d+)-\w+$", own.name).groups()
    earlier = own.with_name(own.name.replace(f"-{started}-", f"-{int(started) - 100}-"))
    elsewhere = own.with_name(own.name.replace(f"-{machine}-{process}-", "-00000000-1-"))
    for folder in (earlier, elsewhere):
        folder.mkdir()
    work_folders.heal(target)
    assert own.exists() and elsewhere.exists() and not earlier.exists()


KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from optimum_si.checkpoint import save
save._exchange = lambda first, second: False
rename = Path.rename
def once(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = once
with save.replaced_directory(sys.argv[1], overwrite=True) as directory:
    (directory / "config.json").write_text("new")
    (directory / "model.safetensors").write_text("new")
"""


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_kill_between_two_renames_is_healed_by_the_next_run(tmp_path, overwrite):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("config.json", "model.safetensors"):
        (out / name).write_text("old")
    assert subprocess.run([sys.executable, "-c", KILLED_BETWEEN, str(out)]).returncode == -signal.SIGKILL
    assert not out.exists()
    if overwrite:
        check_output(out, overwrite=True)
    else:
        with pytest.raises(CheckpointError, match="not empty"):
            check_output(out, overwrite=False)
    assert contents(out) == {"config.json": b"new", "model.safetensors": b"new"} and os.listdir(tmp_path) == ["out"]


def test_an_interruption_between_two_renames_leaves_a_whole_result(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "si_report.json").write_text("old")
    monkeypatch.setattr("optimum_si.checkpoint.save._exchange", lambda first, second: False)
    rename = Path.rename

    def interrupted(self, target):
        rename(self, target)
        monkeypatch.setattr(Path, "rename", rename)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), replaced_directory(out, overwrite=True) as directory:
        (directory / "si_report.json").write_text("new")
    assert (out / "si_report.json").read_text() in ("old", "new") and os.listdir(tmp_path) == ["out"]
