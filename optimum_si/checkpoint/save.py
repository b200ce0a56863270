"""Writing a directory beside its place and moving it in, so that a crash never leaves half a model."""

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optimum_si.errors import CheckpointError


_WRITING = ".writing"


def check_output(directory: str | Path, overwrite: bool) -> Path:
    """The output directory as a path, when it may be written.

    Raises:
        CheckpointError: when it is a file, is not empty and ``overwrite`` is False, or cannot be written to.
    """
    path = Path(directory)
    if path.is_file() or (path.exists() and not path.is_dir()):
        raise CheckpointError(f"output {str(path)!r} is a file: give a directory.")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise CheckpointError(
            f"output directory {str(path)!r} exists and is not empty: choose another one, or replace it with "
            "overwrite=True (--overwrite on the command line)."
        )
    if os.path.ismount(path):
        raise CheckpointError(
            f"output {str(path)!r} is a mount point, which cannot be replaced: give a directory in it."
        )
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise CheckpointError(
            f"output {str(path)!r} is or holds the working directory, which cannot be replaced: give another one."
        )
    parent = path.resolve().parent
    while not parent.exists():
        parent = parent.parent
    if not os.access(parent, os.W_OK):
        raise CheckpointError(f"output directory {str(path)!r} cannot be written: no permission in {str(parent)!r}.")
    return path


@contextmanager
def replaced_directory(directory: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A fresh directory to write into; it takes the place of ``directory`` when the block ends without an error.

    What was there before stays whole until then: a full disk, an error or a kill leaves it as it was.

    Raises:
        CheckpointError: as :func:`check_output`, and when the disk is full.
    """
    path = check_output(directory, overwrite)
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_over(target)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.{os.getpid()}.", suffix=_WRITING, dir=target.parent))
    fresh.chmod(0o777 & ~_umask())
    try:
        yield fresh
        _swap_in(fresh, target)
    except Exception as error:
        if _is_full(error):
            free = shutil.disk_usage(target.parent).free
            raise CheckpointError(
                f"the disk is full: {str(path)!r} was not written ({free / 2**20:.0f} MiB free), what was there "
                "before is intact. Free some space or choose an output on another disk."
            ) from error
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _is_full(error: Exception) -> bool:
    """Whether an error says that the disk is full; safetensors says so in words alone."""
    code = getattr(error, "errno", None)
    full = (errno.ENOSPC, errno.EDQUOT)
    return code in full or any(f"os error {number})" in str(error) for number in full)


def _remove_left_over(target: Path) -> None:
    """Remove what killed runs left beside a directory."""
    for path in target.parent.glob(f".{target.name}.*{_WRITING}"):
        process = path.name[len(target.name) + 2 :].split(".")[0]
        if process.isdigit() and not _runs(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _swap_in(fresh: Path, target: Path) -> None:
    """Move ``fresh`` to ``target``; what was there goes only after the new directory is in place."""
    _sync(fresh)
    if not target.exists():
        fresh.rename(target)
        return
    if _exchange(fresh, target):
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
    target.rename(old / "previous")
    try:
        fresh.rename(target)
    except BaseException:
        (old / "previous").rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


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


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
