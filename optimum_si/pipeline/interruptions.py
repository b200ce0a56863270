"""What an interrupted recovery leaves beside its output, from which the same call goes on."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, ZipFile

import torch
from torch import Tensor, nn

from optimum_si.algorithms.recovery.state import Saved
from optimum_si.checkpoint.outputs import check_output
from optimum_si.checkpoint.save import replaced_directory
from optimum_si.config.small_files import opened_regular
from optimum_si.errors import CheckpointError, reason_of
from optimum_si.warnings import warn


#: Seconds between two times that a recovery is stored.
EVERY = 300.0
_FILE = "recovery.pt"


class Interruptions:
    """The folder of an interrupted recovery.

    Args:
        output: directory that the result goes to; the folder lies beside it.
        run: digest of what was asked for, and of the weights that it began with; another one finds nothing.
        every: seconds between two times that a recovery is stored.

    Raises:
        CheckpointError: when something else is where the folder would be.
    """

    def __init__(self, output: Path, run: str, every: float = EVERY) -> None:
        output = output.resolve()
        self.folder, self.run, self.every = output.parent / f".{output.name}.recovery", run, every
        self._stored = monotonic()
        try:
            check_output(self.folder, overwrite=True, may_be_replaced=_is_ours)
        except CheckpointError as error:  # not after five minutes
            raise CheckpointError(
                f"{str(self.folder)!r}, where an interrupted recovery is kept, holds something else: move it away, or "
                "choose another output."
            ) from error

    def load(self) -> Saved | None:
        """Where the same recovery was interrupted; None where it was not, and for a file that cannot be read."""
        file = self.folder / _FILE
        if not os.path.lexists(file):
            return None
        try:
            with _opened(file) as opened:
                values = torch.load(opened, weights_only=True, map_location="cpu")
            return Saved.from_dict(values["state"]) if values["run"] == self.run else None
        except Exception as error:  # of another version, or damaged in any way that a pickle can be
            reason = reason_of(error)
            warn(f"{str(file)!r} cannot be read ({reason}): the recovery begins anew.")
            return None

    def save(self, make: Callable[[], Saved]) -> None:
        """Store a recovery, where that is due."""
        if monotonic() - self._stored < self.every:
            return
        with replaced_directory(self.folder, overwrite=True, may_be_replaced=_is_ours) as folder:
            torch.save({"run": self.run, "state": make().to_dict()}, folder / _FILE)
        self._stored = monotonic()

    def remove(self) -> None:
        """Forget it: the recovery is over."""
        if self.folder.is_dir() and _is_ours(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    return all(path.name == _FILE for path in folder.iterdir())


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """A file that :meth:`Interruptions.save` may have written.

    Raises:
        OSError: when it cannot be opened.
        ValueError: for a pipe, a file of another user, and one that unpacks to more than it has bytes.
    """
    with opened_regular(file) as opened:
        found = os.fstat(opened.fileno())
        if hasattr(os, "geteuid") and found.st_uid not in (os.geteuid(), 0):
            raise ValueError("it belongs to another user")
        with ZipFile(opened) as archive:
            entries = archive.infolist()
            if (
                any(entry.compress_type != ZIP_STORED for entry in entries)
                or sum(entry.file_size for entry in entries) > found.st_size
            ):
                raise ValueError("it unpacks to more than it has bytes")
        opened.seek(0)
        yield opened


def digest_of(settings: Mapping[str, Any], windows: Sequence[Mapping[str, Tensor]]) -> str:
    """What two calls share that ask for the same: settings that JSON can hold, and the windows."""
    found = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for window in windows:
        for name in sorted(window):
            found.update(name.encode() + _bytes(window[name]))
    return found.hexdigest()[:16]


def digest_of_weights(model: nn.Module) -> str:
    """What two models share whose parameters are the same, bit for bit."""
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        found.update(name.encode() + _bytes(parameter.detach()))
    return found.hexdigest()[:16]


def _bytes(value: Tensor) -> bytes:
    return value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
