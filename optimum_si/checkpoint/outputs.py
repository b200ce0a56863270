"""Where a result may go: what is never replaced, and what a folder has to hold to be replaced on request."""

import glob
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from optimum_si.errors import CheckpointError

from .work_folders import heal


#: Files that only optimum-si writes: any of them makes a folder a result or an export.
OWN_FILES = ("si_report.json", "si_config.json", "si_scales.safetensors", "si_onnx.json")
#: A config with weights or graphs beside it is a checkpoint or an export.
CONFIGS = ("config.json", "genai_config.json", "adapter_config.json")
WEIGHTS = (".safetensors", ".bin", ".onnx", ".gguf", ".pt", ".pth", ".h5", ".msgpack")
#: Folders that are looked through for a repository.
MOST_FOLDERS = 1000
#: Bytes of an adapter's config.
_LARGEST_CONFIG = 1 << 20


def check_output(
    directory: str | Path,
    overwrite: bool,
    sources: Iterable[Any] = (),
    may_be_replaced: Callable[[Path], bool] | None = None,
) -> Path:
    """The output directory as a path, when it may be written.

    Args:
        directory: where a result is to go.
        overwrite: whether a result, checkpoint or export that is there may be replaced.
        sources: paths that the run reads, which must not be replaced by what it writes; what is no local path is
            passed over.
        may_be_replaced: tells of a folder that holds something whether it is of the kind that is written; None is
            :func:`looks_like_a_result`.

    Raises:
        CheckpointError: when it is a file, holds something and ``overwrite`` is False, holds what does not look like a
            result, is or holds one of ``sources``, a home or the working directory, or cannot be written to.
    """
    path = Path(directory)
    try:
        os.fsencode(path)
        heal(path.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, and what no path can hold
        raise CheckpointError(
            f"output {str(path)!r} is no path that can be written ({error}): give another."
        ) from error
    try:
        held = path.is_dir() and any(path.iterdir())
    except OSError as error:
        raise CheckpointError(f"output {str(path)!r} cannot be read: {error.strerror}.") from error
    if not path.is_dir() and (path.exists() or path.is_symlink()):
        kind = "a link to nothing" if path.is_symlink() else "a file"
        raise CheckpointError(f"output {str(path)!r} is {kind}: give a directory.")
    if held and not overwrite:
        raise CheckpointError(
            f"output directory {str(path)!r} exists and is not empty: choose another one, or replace it with "
            "overwrite=True (--overwrite on the command line)."
        )
    _check_place(path)
    _check_sources(path, sources)
    if held and not (may_be_replaced or looks_like_a_result)(path):
        raise CheckpointError(
            f"output directory {str(path)!r} holds files, but does not look like a result, checkpoint or export: "
            f"none of {', '.join(OWN_FILES)}, no config.json beside weights, or a .git folder. Give another one, "
            "or empty it yourself."
        )
    parent = path.resolve().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise CheckpointError(f"output directory {str(path)!r} cannot be made: {str(parent)!r} is a file.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise CheckpointError(f"output directory {str(path)!r} cannot be written: no permission in {str(parent)!r}.")
    return path


def looks_like_a_result(directory: Path) -> bool:
    """Whether a folder holds a result, a checkpoint or an export, and no repository whose history would be lost."""
    names = {entry.name for entry in directory.iterdir()}
    if _holds_a_repository(directory):
        return False
    has_weights = any(name.endswith(WEIGHTS) for name in names)
    return not names.isdisjoint(OWN_FILES) or (has_weights and not names.isdisjoint(CONFIGS))


def _holds_a_repository(directory: Path) -> bool:
    """Whether a repository of git is in a folder, or it is one; of very many entries the first are looked at."""
    for number, (_, folders, files) in enumerate(os.walk(directory)):
        if ".git" in (*folders, *files) or {"objects", "refs"} <= set(folders) and "HEAD" in files:
            return True
        if number == MOST_FOLDERS:
            break
    return False


def _check_place(path: Path) -> None:
    """Refuse what is never a result, whatever it holds."""
    if os.path.ismount(path.resolve()):
        raise CheckpointError(
            f"output {str(path)!r} is a mount point, which cannot be replaced: give a directory in it."
        )
    resolved = path.resolve()
    here = _working_directory()
    if here is not None and resolved in (here, *here.parents):
        raise CheckpointError(
            f"output {str(path)!r} is or holds the working directory, which cannot be replaced: give another one."
        )
    for home in _homes():
        if resolved in (home, *home.parents):
            raise CheckpointError(
                f"output {str(path)!r} is or holds a home directory, which is never replaced: give a directory in it."
            )


def _working_directory() -> Path | None:
    try:
        return Path.cwd().resolve()
    except FileNotFoundError:  # removed meanwhile
        return None


def _homes() -> set[Path]:
    """Homes of this user and, where they exist, of all others."""
    found = {Path.home().resolve()}
    try:
        import pwd
    except ImportError:  # not a Unix
        return found
    for entry in pwd.getpwall():
        home = Path(entry.pw_dir)
        if home.is_absolute() and home.is_dir():
            found.add(home.resolve())
    return found


def _check_sources(path: Path, sources: Iterable[Any]) -> None:
    """Refuse to replace what the run reads."""
    resolved = path.resolve()
    for source in sources:
        for file in [*_local(source), *_local(_base_of_adapter(source))]:
            if resolved in (file, *file.parents):
                raise CheckpointError(
                    f"output {str(path)!r} is or holds {str(source)!r}, which this run reads and would replace: give "
                    "another directory."
                )


def _base_of_adapter(source: Any) -> Any:
    """The model that an adapter in a folder belongs to, which is read as well; None for all else."""
    try:
        file = Path(os.path.expanduser(source), "adapter_config.json")
        if file.is_file() and file.stat().st_size <= _LARGEST_CONFIG:
            return json.loads(file.read_bytes()).get("base_model_name_or_path")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):  # loading says what is wrong with it
        pass
    return None


def _local(source: Any) -> Iterable[Path]:
    """The paths that exist behind a path or a glob; none for names on the Hub and what is no path at all."""
    if not isinstance(source, str | os.PathLike) or not os.fspath(source):
        return []
    expanded = os.path.expanduser(os.fspath(source))
    try:
        if os.path.lexists(expanded):
            return [Path(expanded).resolve()]
        return [Path(found).resolve() for found in glob.iglob(expanded, recursive=True)]
    except (OSError, ValueError):  # too long, or with a NUL: no path
        return []
