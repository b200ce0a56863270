"""Which files a place has, in a folder or on the Hub, and copying one that somebody else has named."""

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

from .locate import find_file


#: Entries of a place that are looked at.
_MOST = 20_000


def files_at(source: str, **kwargs: Any) -> dict[str, int]:
    """Sizes of the files at a place, by their paths; -1 for what is no regular file.

    Of a folder those directly in it, since it may be somebody's home; of a repository all.

    Args:
        source: directory or Hub id.
        kwargs: ``subfolder`` that is looked at, ``revision``, ``token``, ``cache_dir``, ``local_files_only``.
    """
    subfolder = kwargs.get("subfolder") or ""
    if Path(source).is_dir():
        return _sizes(Path(source, subfolder), islice(Path(source, subfolder).iterdir(), _MOST))
    return _on_hub(source, f"{subfolder.strip('/')}/" if subfolder else "", **kwargs)


def files_below(root: Path, folder: str) -> dict[str, int]:
    """Sizes of all files in a folder of a directory, by their paths from there; links to folders are not followed."""
    return _sizes(root, islice(_walked(root / folder), _MOST))


def stays_inside(file: Path, root: Path) -> bool:
    """Whether a file is one of a directory, also after all links; those of a cache of the Hub lead to its blobs."""
    resolved, inside = file.resolve(), root.resolve()
    if resolved.is_relative_to(inside):
        return True
    for folder in (inside, *inside.parents):
        blobs = folder.parent.parent / "blobs"
        if folder.parent.name == "snapshots" and not blobs.is_symlink() and resolved.parent == blobs:
            return True
    return False


def copy_file(file: Path, target: Path, largest: int) -> str | None:
    """Copy a regular file to where nothing is; the reason where that cannot be done. A full disk is an error."""
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        return error.strerror or type(error).__name__
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > largest:
            return "no regular file" if not stat.S_ISREG(found.st_mode) else f"{found.st_size:,} bytes"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            return "a file is where its folder would be"
        with target.open("xb") as written:
            shutil.copyfileobj(opened, written)
    return None


def _on_hub(source: str, prefix: str, **kwargs: Any) -> dict[str, int]:
    """Files of a repository; without a connection, those of it in the cache."""
    if not kwargs.get("local_files_only"):
        try:
            place: dict[str, Any] = {"revision": kwargs.get("revision"), "token": kwargs.get("token")}
            tree = islice(HfApi().list_repo_tree(source, recursive=True, **place), _MOST)
            files = {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
            return {name.removeprefix(prefix): size for name, size in files.items() if name.startswith(prefix)}
        except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError):
            raise
        except Exception:  # offline, by choice or not
            pass
    for name in (CONFIG_NAME, ADAPTER_CONFIG_NAME):
        if (file := find_file(source, name, **kwargs)) is not None:
            return _sizes(file.parent, islice(_walked(file.parent), _MOST))
    return {}


def _walked(root: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names))


def _sizes(root: Path, files: Iterable[Path]) -> dict[str, int]:
    found = {}
    for file in files:
        try:
            state = file.stat()
        except OSError:  # a link to nothing, or in a circle
            found[file.relative_to(root).as_posix()] = -1
            continue
        if not stat.S_ISDIR(state.st_mode):
            found[file.relative_to(root).as_posix()] = state.st_size if stat.S_ISREG(state.st_mode) else -1
    return found
