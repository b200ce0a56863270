"""Where the files of a checkpoint are: in a directory, or in a repository on the Hub."""

from pathlib import Path
from typing import Any

from transformers.utils import cached_file


#: Arguments of ``from_pretrained`` that say where files come from; also good for tokenizers and side files.
PLACE = ("revision", "token", "cache_dir", "local_files_only", "subfolder")


def place_of(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments for ``from_pretrained`` that are in :data:`PLACE`."""
    return {name: kwargs[name] for name in PLACE if name in kwargs}


def find_file(source: str | Path, name: str, **kwargs: Any) -> Path | None:
    """A file of a directory or of a repository on the Hub, where it has one."""
    if Path(source).is_dir():
        local = Path(source, kwargs.get("subfolder") or "", name)
        return local if local.is_file() else None
    if Path(source).is_file():  # a GGUF file, which has all in itself
        return None
    found = cached_file(str(source), name, _raise_exceptions_for_missing_entries=False, **place_of(kwargs))
    return None if found is None else Path(found)
