"""`si recover` on folders of others: each damaged or planted file ends in one line, or is passed over and named."""

import os
import pickle
import time
import zipfile
from argparse import ArgumentParser
from pathlib import Path

import pytest
import torch
from support.recovery import save_pruned

from optimum_si import CheckpointError, SIError
from optimum_si.algorithms.recovery.memory import Level, MemoryPlan
from optimum_si.algorithms.recovery.state import Saved
from optimum_si.commands.recover import RecoverCommand
from optimum_si.pipeline.interruptions import Interruptions


TEXTS = [" ".join(f"d{document}w{word}" for word in range(60)) for document in range(40)]
STATE = Saved(MemoryPlan(Level.ADAM, 0, [range(2)]), finished={})


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    save_pruned(folder, TEXTS)
    return folder


@pytest.fixture
def pruned(places, tmp_path):
    """A copy whose files may be replaced."""
    (tmp_path / "pruned").mkdir()
    for file in (places / "pruned").iterdir():
        (tmp_path / "pruned" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "pruned"


def recover(places, directory):
    parser = ArgumentParser("optimum-cli si recover")
    RecoverCommand.parse_args(parser)
    words = [directory, "-m", places / "dense", "--num-samples", "4", "-o", directory.parent / "out"]
    RecoverCommand.execute(None, parser.parse_args([str(word) for word in words]))


def huge(file):
    with file.open("wb") as opened:
        opened.write(b'{"a": "')
        opened.truncate(1 << 33)


HOSTILE = {
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:100]),
    "empty": lambda file: file.write_bytes(b""),
    "random": lambda file: file.write_bytes(os.urandom(999)),
    "a list": lambda file: file.write_bytes(b"[]"),
    "a number": lambda file: file.write_bytes(b"3"),
    "deep": lambda file: file.write_bytes(b"[" * 200_000),
    "deep objects": lambda file: file.write_bytes(b'{"a":' * 100_000),
    "a number of thousands of digits": lambda file: file.write_bytes(b'{"seed": ' + b"9" * 5000 + b"}"),
    "another type": lambda file: file.write_bytes(b'{"calibration": [], "blocks": 3, "sparsity": {}}'),
    "gigabytes": lambda file: (file.unlink(), huge(file)),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a device": lambda file: (file.unlink(), file.symlink_to("/dev/zero")),
    "a link to itself": lambda file: (file.unlink(), file.symlink_to(file.name)),
}


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("name", ["si_config.json", "si_report.json"])
def test_a_damaged_record_is_one_line_and_nothing_is_written(places, pruned, name, how):
    HOSTILE[how](pruned / name)
    started = time.monotonic()
    with pytest.raises((SIError, OSError), match=name) as raised:
        recover(places, pruned)
    assert "\n" not in str(raised.value) and time.monotonic() - started < 10
    assert os.listdir(pruned.parent) == ["pruned"]


class Planted:
    """What a pickle runs where it is loaded without care."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def kept(tmp_path):
    """An interrupted recovery, and the file that it is in."""
    found = Interruptions(tmp_path / "out", "a run", every=0.0)
    found.save(lambda: STATE)
    assert found.load() == STATE
    return found, found.folder / "recovery.pt"


def compressed(file):
    with zipfile.ZipFile(file) as archive:
        contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


STATES = {
    **{how: HOSTILE[how] for how in HOSTILE if how not in ("another type", "a number of thousands of digits")},
    "compressed": compressed,
    "a planted pickle": lambda file: file.write_bytes(
        pickle.dumps({"run": "a run", "state": Planted(file.parent / "ran")})
    ),
    "a planted archive": lambda file: torch.save({"run": "a run", "state": Planted(file.parent / "ran")}, file),
    "a list in an archive": lambda file: torch.save([1], file),
    "a number as state": lambda file: torch.save({"run": "a run", "state": 3}, file),
    "groups of text": lambda file: torch.save(
        {"run": "a run", "state": {**STATE.to_dict(), "plan": {"groups": ["ab"], "level": "ADAM"}}}, file
    ),
}


@pytest.mark.parametrize("how", STATES)
def test_a_state_that_cannot_be_read_is_passed_over_and_named(kept, how):
    found, file = kept
    STATES[how](file)
    started = time.monotonic()
    with pytest.warns(UserWarning, match="recovery.pt' cannot be read .*: the recovery begins anew") as said:
        assert found.load() is None
    assert all("\n" not in str(one.message) for one in said) and time.monotonic() - started < 10
    assert not (file.parent / "ran").exists()


def test_the_state_of_another_user_is_passed_over(kept, monkeypatch):
    found, file = kept
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    if file.stat().st_uid == 0:  # what is root's may be read by anybody
        os.chown(file, 12345, -1)
    with pytest.warns(UserWarning, match="it belongs to another user"):
        assert found.load() is None


@pytest.mark.parametrize(
    "make",
    [lambda place: os.mkfifo(place), lambda place: place.write_text("x"), lambda place: place.symlink_to("nowhere")],
    ids=["pipe", "file", "link"],
)
def test_something_else_in_the_place_of_interruptions_is_said_before_the_run(tmp_path, make):
    make(tmp_path / ".out.recovery")
    with pytest.raises(CheckpointError, match="holds something else: move it away"):
        Interruptions(tmp_path / "out", "a run")


def test_files_of_others_beside_a_state_are_never_removed(kept, tmp_path):
    found, file = kept
    (file.parent / "mine.txt").write_text("precious")
    found.remove()
    assert (file.parent / "mine.txt").read_text() == "precious"
    with pytest.raises(CheckpointError, match="holds something else"):
        Interruptions(tmp_path / "out", "a run")
