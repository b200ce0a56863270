"""The files of a checkpoint's directory: which of them may be published, and writing a small one beside them."""

import secrets
from pathlib import Path

from optimum_si.errors import CheckpointError


def files_in(directory: Path) -> dict[str, Path]:
    """Files by their path in the repository, without hidden ones and links that lead out of the directory."""
    root = directory.resolve()
    paths = {file.relative_to(directory): file for file in sorted(directory.rglob("*")) if file.is_file()}
    return {
        name.as_posix(): file
        for name, file in paths.items()
        if not any(part.startswith(".") for part in name.parts) and file.resolve().is_relative_to(root)
    }


def write_small_file(path: Path, text: str) -> None:
    """Write a file under another name and move it in, so that what was there is whole until then.

    Raises:
        CheckpointError: when it cannot be written.
    """
    fresh = path.with_name(f".si-{secrets.token_hex(8)}.writing")
    try:
        with fresh.open("x", encoding="utf-8", errors="surrogateescape") as file:  # never through somebody's link
            file.write(text)
        fresh.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"{str(path)!r} cannot be written ({error}): what was there before is intact."
        ) from error
    finally:
        fresh.unlink(missing_ok=True)
