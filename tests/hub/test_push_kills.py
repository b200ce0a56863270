"""A push that is killed: the folder is as it was, and the repository as before it or as after it, never between."""

import os
import signal
import socket
import sys
import time

import pytest
from support.models import calibration, prune
from support.onnx_models import causal

from optimum_si.hub.push import push_folder


RECIPE = {"pattern": "2:4", "induction": None}
REPOSITORY = "me/sparse-llama"
#: Kills among the steps of one push, evenly, beside those at each request to the Hub.
KILLS = 25
#: What changes files or names, or reaches the network: audit hooks tell before the system is asked.
STEPS = ("open", "os.", "shutil.", "tempfile.", "socket.")


@pytest.fixture
def folders(tmp_path):
    """An earlier result and a later one, in folders."""
    for method in ("magnitude", "wanda"):
        prune(causal("llama"), method, calibration("llama"), **RECIPE).save_pretrained(tmp_path / method)
    return tmp_path / "magnitude", tmp_path / "wanda"


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def settled(hub):
    """The repository once nothing is under way: the Hub may still work on what it got before the kill."""
    there = None
    while there != (there := dict(hub.repositories[REPOSITORY])):
        time.sleep(0.03)
    return there


def pushed_by_a_child(folder, kill_at=0, sends=0):
    """Push in a child that is killed before one of its steps, or of its sends; how many of both it came to."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        steps, sent = 0, 0
        send = socket.socket.send

        def told():
            os.write(writing, f"{steps} {sent}\n".encode())

        def hook(event, args):
            nonlocal steps
            if event.startswith(STEPS):
                steps += 1
                if steps == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        def counted(self, data, *flags):
            nonlocal sent
            sent += 1
            if sent == sends:
                send(self, data[: len(data) // 2], *flags)  # in the middle of a request
                os.kill(os.getpid(), signal.SIGKILL)
            return send(self, data, *flags)

        try:
            sys.addaudithook(hook)
            socket.socket.send = counted
            push_folder(folder, REPOSITORY, token="hf_fake")
            told()
        finally:
            os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as told:
        counts = [int(number) for number in told.read().split()]
    return os.WIFSIGNALED(status), counts


@pytest.mark.slow
@pytest.mark.parametrize("lfs", [True, False], ids=["weights apart", "in the commit"])
def test_a_killed_push_leaves_the_folder_whole_and_the_repository_old_or_new(local_hub, folders, monkeypatch, lfs):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    local_hub.lfs = lfs
    earlier, later = folders
    push_folder(earlier, REPOSITORY, token="hf_fake")
    old = dict(local_hub.repositories[REPOSITORY])
    here = contents(later)
    killed, (steps, sends) = pushed_by_a_child(later)
    new = dict(local_hub.repositories[REPOSITORY])
    assert not killed and new != old and steps > KILLS and sends > 3
    found = {"old": 0, "new": 0}
    kills = [{"kill_at": step} for step in range(1, steps, max(steps // KILLS, 1))]
    for kill in [*kills, *({"sends": send} for send in range(1, sends + 1))]:
        local_hub.repositories[REPOSITORY] = dict(old)
        local_hub.blobs.clear()
        pushed_by_a_child(later, **kill)
        there = settled(local_hub)
        assert there in (old, new), kill
        found["new" if there == new else "old"] += 1
        assert contents(later) == here, kill
    assert found["old"] > KILLS // 2
    # And the next push brings what the killed one did not.
    assert not pushed_by_a_child(later)[0] and local_hub.repositories[REPOSITORY] == new
