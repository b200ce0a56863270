"""Whether a compiled library may be loaded: nobody else can have written it, and it is as it was compiled."""

import hashlib
import os
import shutil
import stat
import time
from pathlib import Path

import psutil

from .build import COMPILING, HASH


#: Seconds that no compilation takes.
LONGEST = 3600


class NotTrusted(OSError):
    """A library, or its folder, that somebody else may have written."""


def private_directory(path: Path) -> Path:
    """A folder that nobody else can write to, made where it is missing.

    Raises:
        NotTrusted: for a relative path, and for what is owned or can be written by others.
    """
    if not path.is_absolute():
        raise NotTrusted(f"{str(path)!r} is no absolute path, and the working directory may be anybody's")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(path)
    return path


def intact_library(path: Path, others: bool = False) -> bool:
    """Whether a library is there and is what was compiled; a damaged one would end the process that loads it.

    Args:
        path: of the library; its hash lies beside it.
        others: whether it may belong to another user, as what is installed does.

    Raises:
        NotTrusted: for one that is owned or can be written by others.
    """
    recorded = path.with_name(path.name + HASH)
    if not path.is_file() or not recorded.is_file():
        return False
    if not others:
        _check_owner(path)
    return recorded.read_text(encoding="ascii", errors="replace").strip() == digest(path)


def digest(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_killed_compilations(directory: Path) -> None:
    """Remove what compilations left that were killed."""
    for folder in directory.glob(f"{COMPILING}*"):
        try:
            process = folder.name.removeprefix(COMPILING).split("-")[0]
            is_old = time.time() - folder.stat().st_mtime > LONGEST
            if is_old or not (process.isdecimal() and psutil.pid_exists(int(process))):
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue


def _check_owner(path: Path) -> None:
    found = os.lstat(path)
    kind = "folder" if stat.S_ISDIR(found.st_mode) else "file"
    if stat.S_ISLNK(found.st_mode):
        raise NotTrusted(f"{str(path)!r} is a link")
    if not hasattr(os, "getuid"):  # rights are not a matter of modes on Windows
        return
    if found.st_uid != os.getuid():
        raise NotTrusted(f"the {kind} {str(path)!r} belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotTrusted(f"the {kind} {str(path)!r} can be written by other users (chmod go-w {str(path)!r})")
