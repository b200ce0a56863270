"""``si_onnx.json``: what an export is for, and checksums by which damaged files are found before they compute."""

import json
import zlib
from pathlib import Path

from optimum_si.errors import CheckpointError
from optimum_si.version import __version__


MANIFEST = "si_onnx.json"
#: Bytes that no record has.
_LARGEST = 1 << 24


def write_manifest(
    directory: Path, graphs: list[Path], device: str, dtype: str, architecture: str, verified: bool
) -> None:
    """Record the graphs in a directory, each with the weights beside it, and whether their answers were compared."""
    names = sorted(name for path in graphs for name in (path, path.with_name(f"{path.name}.data")) if name.is_file())
    manifest = {
        "optimum_si_version": __version__,
        "architecture": architecture,
        "device": device,
        "values": dtype,
        "verified": verified,
        "files": {name.name: {"bytes": name.stat().st_size, "crc32": checksum(name)} for name in names},
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def check_files(path: Path, verify: bool) -> None:
    """Compare a graph and its weights with what was recorded; a graph without a record passes.

    Args:
        path: file of the graph.
        verify: compare checksums, and not the sizes alone.

    Raises:
        CheckpointError: for a file that is missing, cut off or damaged, or a record that cannot be read.
    """
    for name, size, expected in _recorded(path):
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise CheckpointError(f"{MANIFEST} names {name!r}, outside its own folder: export the model again.")
        file = path.parent / name
        if not file.is_file():
            raise CheckpointError(f"{str(file)!r} is missing: copy the whole directory, or export the model again.")
        if file.stat().st_size != size:
            raise CheckpointError(
                f"{str(file)!r} has {file.stat().st_size} bytes and was written with {size}: it was cut off or "
                "changed. Copy or export it again."
            )
        if verify and checksum(file) != expected:
            raise CheckpointError(f"{str(file)!r} is damaged (its checksum is another one): copy or export it again.")


def _recorded(path: Path) -> list[tuple[str, int, int]]:
    """(name, bytes, checksum) of a graph's files."""
    manifest = path.with_name(MANIFEST)
    if not manifest.is_file():
        return []
    try:
        if manifest.stat().st_size > _LARGEST:
            raise ValueError(f"it has {manifest.stat().st_size:,} bytes")
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return [(name, entry["bytes"], entry["crc32"]) for name, entry in files.items() if name.startswith(path.name)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{str(manifest)!r} cannot be read ({error}): export the model again.") from error


def checksum(path: Path) -> int:
    """CRC-32 of a file, read in pieces."""
    value = 0
    with path.open("rb") as file:
        while piece := file.read(2**24):
            value = zlib.crc32(piece, value)
    return value
