"""Writing a directory beside its place and moving it in, so that a crash never leaves half a model."""

import ctypes
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optimum_si.errors import CheckpointError

from .outputs import check_output
from .work_folders import NEW, PREVIOUS, settle, work_folder


@contextmanager
def replaced_directory(
    directory: str | Path,
    overwrite: bool = False,
    sources: Iterable[Any] = (),
    may_be_replaced: Callable[[Path], bool] | None = None,
) -> Iterator[Path]:
    """A fresh directory to write into; it takes the place of ``directory`` when the block ends without an error.

    What was there before stays whole until then: a full disk, an error or a kill leaves it as it was.

    Args:
        directory: where the result goes.
        overwrite: whether what is there may be replaced.
        sources, may_be_replaced: see :func:`check_output`.

    Raises:
        CheckpointError: as :func:`check_output`, and when the disk is full.
    """
    path = Path(directory)
    check_output(path, overwrite, sources, may_be_replaced)
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = work_folder(target)
    try:
        (fresh := folder / NEW).mkdir()
        yield fresh
        _swap_in(folder, target)
    except Exception as error:
        if _is_full(error):
            free = shutil.disk_usage(target.parent).free
            raise CheckpointError(
                f"the disk is full: {str(path)!r} was not written ({free / 2**20:.0f} MiB free), what was there "
                "before is intact. Free some space or choose an output on another disk."
            ) from error
        raise
    finally:
        settle(folder, target)


def _is_full(error: Exception) -> bool:
    """Whether an error says that the disk is full; safetensors says so in words alone."""
    code = getattr(error, "errno", None)
    full = (errno.ENOSPC, errno.EDQUOT)
    return code in full or any(f"os error {number})" in str(error) for number in full)


def _swap_in(folder: Path, target: Path) -> None:
    """Move what was written to ``target``; what was there goes only after the new directory is in place."""
    fresh, previous = folder / NEW, folder / PREVIOUS
    _sync(fresh)
    if not target.exists():
        fresh.rename(target)
    elif not _exchange(fresh, target):
        target.rename(previous)
        try:
            fresh.rename(target)
        except BaseException:
            previous.rename(target)
            raise
    _sync_entry(target.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directories in one step that nothing can interrupt; False where the system cannot (not Linux)."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0


def _sync(directory: Path) -> None:
    """Have the files on disk before a rename makes them visible."""
    for file in directory.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    for folder in (directory, *(entry for entry in directory.rglob("*") if entry.is_dir())):
        _sync_entry(folder)


def _sync_entry(folder: Path) -> None:
    """Have the names in a folder on disk, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
