"""Folders that a run works in, named after the process that owns them: a dead run's are told from a live one's."""

import hashlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil


_NAME = re.compile(
    r"\.si-writing-(?P<place>[0-9a-f]{12})-(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-(?P<started>\d+)-\w+"
)
#: In such a folder: what the run writes, and what was in its place.
NEW, PREVIOUS = "new", "previous"
#: Seconds by which two readings of a process's start may differ: clocks are set.
_APART = 3


def work_folder(target: Path) -> Path:
    """A new empty folder beside ``target``, owned by this process.

    Nothing that a user chose is part of its name, so that no name can be too long, or mean something to a search.
    """
    started = int(psutil.Process().create_time())
    place, machine = _digest(target.name, 12), _digest(_machine(), 8)
    name = f".si-writing-{place}-{machine}-{os.getpid()}-{started}-{secrets.token_hex(4)}"
    folder = target.parent / name
    folder.mkdir(mode=0o700)
    return folder


def heal(target: Path) -> None:
    """Finish, or clear away, what runs that were killed left of writing a directory.

    Args:
        target: where a result was to go; an absolute path without links.
    """
    for folder in _abandoned(target):
        settle(folder, target)


def settle(folder: Path, target: Path) -> None:
    """Remove a folder that a run worked in.

    Where the run was stopped between two renames, so that nothing is at ``target``, the result goes there first: it
    was complete by then.
    """
    if (folder / PREVIOUS).is_dir() and not os.path.lexists(target):
        (folder / (NEW if (folder / NEW).is_dir() else PREVIOUS)).rename(target)
    shutil.rmtree(folder, ignore_errors=True)


def _abandoned(target: Path) -> Iterator[Path]:
    """What runs that are dead left of writing ``target``; folders of other machines are never among them."""
    try:
        names = sorted(os.listdir(target.parent))
    except OSError:
        return
    for name in names:
        found = _NAME.fullmatch(name)
        if (
            found
            and found["place"] == _digest(target.name, 12)
            and found["machine"] == _digest(_machine(), 8)
            and not _runs(int(found["process"]), int(found["started"]))
        ):
            yield target.parent / name


def _runs(process: int, started: int) -> bool:
    """Whether a process runs that started then: numbers of processes are used again."""
    try:
        return abs(psutil.Process(process).create_time() - started) <= _APART
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # somebody else's, which may not be looked at
        return True


def _machine() -> str:
    """Where process numbers mean the same: a container has its own."""
    try:
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:length]
