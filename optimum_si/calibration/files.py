"""Local files -> a source: a document or an image a file, JSON, JSON lines or Parquet."""

import glob
import gzip
import json
import os
import zlib
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from optimum_si.errors import CalibrationError
from optimum_si.warnings import warn

from .columns import find_columns, is_tokenized
from .media import IMAGE_FILES, IMAGES
from .reader import TEXT, Reader
from .rows import Source, as_source


#: Bytes of text that are read of one file, and of all: calibration takes a few megabytes of them, and a small archive
#: may unpack to any size.
MOST_OF_FILE, MOST_OF_ALL = 1 << 25, 1 << 27
#: Files and folders that are looked through.
MOST = 100_000
#: Which columns are wanted, by the first row; None for all.
ColumnsOf = Callable[[dict[str, Any]], list[str] | None]


def find_files(name: str) -> list[Path] | None:
    """The readable files that a path, a folder (with all below it) or a glob means, sorted; None when nothing matches.

    Raises:
        CalibrationError: when something is there and none of it can be read.
    """
    if os.path.isdir(name):
        matches = list(
            islice((file for file in Path(name).rglob("*") if not _is_hidden(file.relative_to(name))), MOST)
        )
        if len(matches) == MOST:
            raise CalibrationError(f"dataset={name!r} holds more than {MOST:,} files: name a folder of texts in it.")
    elif os.path.exists(name):
        matches = [Path(name)]
    else:
        matches = [Path(match) for match in islice(glob.iglob(name, recursive=True), MOST)]
        if not matches:
            return None
    known = (*READERS, *IMAGE_FILES)
    files = sorted(file for file in matches if (_kind(file) in READERS or is_image_file(file)) and _is_file(file))
    if not files:
        raise CalibrationError(f"dataset={name!r} holds no file that can be read; accepted: {', '.join(known)}.")
    return files


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # of somebody else
        return False


def is_image_file(file: Path) -> bool:
    """Whether the name of a file is that of an image."""
    return file.suffix.lower() in IMAGE_FILES


def looks_like_a_path(name: str) -> bool:
    """Whether a name that exists nowhere was meant as a path, and not as a Hub name ("name", "owner/name")."""
    return (
        glob.has_magic(name)
        or _kind(Path(name)) in READERS
        or is_image_file(Path(name))
        or name.startswith((".", os.sep))
        or name.endswith(("/", os.sep))
        or name.count("/") > 1
        or "\\" in name
    )


def read_files(
    files: list[Path], column: str | None, reader: Reader | None = None, target: str | None = None
) -> Source:
    """All files as one source; images among texts are left out for a model that reads text, and texts for others.

    Raises:
        CalibrationError: names the file that cannot be read, or says that files are of several kinds.
    """
    reader = reader or Reader()
    images = [file for file in files if is_image_file(file)]
    texts = [file for file in files if not is_image_file(file)]
    if images and (not texts or not reader.reads(TEXT)):
        return as_source(images, column, f"a folder of {IMAGES}", reader, target)
    sources: list[Source] = []
    left = MOST_OF_ALL
    for file in texts:
        if left <= 0:
            warn(f"only the first {len(sources)} of {len(texts)} files are read, which hold {MOST_OF_ALL >> 20} MiB.")
            break
        if rows := READERS[_kind(file)](file, partial(_columns, column, target, str(file), reader)):
            sources.append(as_source(rows, column, str(file), reader, target))
        left -= max(file.stat().st_size, sum(map(_size, rows)))
    if not sources:
        return Source([], "text")
    if len({(source.kind, source.columns) for source in sources}) > 1:
        kinds = " and ".join(sorted({source.kind for source in sources}))
        raise CalibrationError(f"The files hold {kinds}, not all in the same columns: give a glob of one kind.")
    first = sources[0]
    return Source([row for source in sources for row in source.rows], first.kind, first.columns)


def _read(file: Path) -> tuple[str, bool]:
    """The text of a file, up to the last whole line within :data:`MOST_OF_FILE`, and whether that is all of it."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            content = opened.read(MOST_OF_FILE + 1)
        if len(content) <= MOST_OF_FILE:
            return content.decode("utf-8-sig"), True
        warn(f"{file}: the first {MOST_OF_FILE >> 20} MiB of its text are used.")
        content = content[: content.rfind(b"\n", 0, MOST_OF_FILE) + 1] or content[:MOST_OF_FILE]
        return content.decode("utf-8-sig", errors="ignore"), False
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise CalibrationError(f"{file} cannot be read as UTF-8 text: {error}.") from error


def _read_document(file: Path, columns_of: ColumnsOf) -> list[Any]:
    return [_read(file)[0]]


def _read_json(file: Path, columns_of: ColumnsOf) -> list[Any]:
    text, is_whole = _read(file)
    if not is_whole and text.lstrip().startswith("[") and not text.partition("\n")[0].rstrip().endswith("]"):
        raise CalibrationError(
            f"{file} is one JSON value of more than {MOST_OF_FILE >> 20} MiB: give JSON lines (a value on each line), "
            "of which the first are enough."
        )
    try:
        value = json.loads(text)
    except json.JSONDecodeError:  # the Hub's ".json" files are JSON lines
        return _json_lines(file, text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
        raise CalibrationError(f"{file} is no JSON that can be read: {error}.") from error
    return value if isinstance(value, list) else [value]


def _read_json_lines(file: Path, columns_of: ColumnsOf) -> list[Any]:
    return _json_lines(file, _read(file)[0])


def _json_lines(file: Path, text: str) -> list[Any]:
    rows = []
    # Not splitlines(): JSON strings may hold the other line separators of Unicode.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise CalibrationError(f"Line {number} of {file} is no JSON: {error}.") from error
    return rows


def _read_parquet(file: Path, columns_of: ColumnsOf) -> list[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise CalibrationError(f'Reading {file} needs pyarrow: pip install "optimum-si[datasets]".') from error
    try:
        with ParquetFile(file) as table:
            if table.metadata.num_rows == 0:
                return []
            first = next(table.iter_batches(batch_size=1)).to_pylist()[0]
            # Of a table of text, only that column: the others may be many times larger.
            columns = columns_of(first)
            rows, size = [], 0
            # Few at a time: a row may unpack to any size.
            for batch in table.iter_batches(batch_size=16, columns=columns):
                rows += batch.to_pylist()
                size += sum(map(_size, rows[-len(batch) :]))
                if size > MOST_OF_FILE:
                    warn(f"{file}: its first {len(rows):,} rows are used, which hold {size >> 20} MiB.")
                    break
            return rows
    except (OSError, ArrowException) as error:
        raise CalibrationError(f"{file} cannot be read as Parquet: {error}") from error


def _columns(
    column: str | None, target: str | None, origin: str, reader: Reader, first: dict[str, Any]
) -> list[str] | None:
    if is_tokenized(first, column):
        return None
    sources = {name: value for name, value in first.items() if name != target}
    return [*find_columns(sources, column, origin, reader).names, *([target] if target in first else [])]


def _size(row: Any) -> int:
    """About how many bytes a row holds."""
    if isinstance(row, dict):
        return sum(map(_size, row.values()))
    return len(row) * (8 if isinstance(row, list) else 1) if isinstance(row, (str, bytes, list)) else 8


READERS: dict[str, Callable[[Path, ColumnsOf], list[Any]]] = {
    ".txt": _read_document,
    ".md": _read_document,
    ".py": _read_document,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}


def _kind(file: Path) -> str:
    return Path(file.stem).suffix if file.suffix == ".gz" else file.suffix


def _is_hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)
