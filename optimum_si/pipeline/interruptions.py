"""What an interrupted recovery leaves beside its output, from which the same call goes on."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si.algorithms.recovery.state import Saved
from optimum_si.checkpoint.save import replaced_directory


#: Seconds between two times that a recovery is stored.
EVERY = 300.0
_FILE = "recovery.pt"


class Interruptions:
    """The folder of an interrupted recovery.

    Args:
        output: directory that the result goes to; the folder lies beside it.
        run: digest of what was asked for, and of the weights that it began with; another one finds nothing.
        every: seconds between two times that a recovery is stored.
    """

    def __init__(self, output: Path, run: str, every: float = EVERY) -> None:
        output = output.resolve()
        self.folder, self.run, self.every = output.parent / f".{output.name}.recovery", run, every
        self._stored = monotonic()

    def load(self) -> Saved | None:
        """Where the same recovery was interrupted; None where it was not."""
        try:
            values = torch.load(self.folder / _FILE, weights_only=True, map_location="cpu")
            return Saved.from_dict(values["state"]) if values["run"] == self.run else None
        except Exception:  # none, of another version, or damaged in any way that a pickle can be
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
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    return all(path.name == _FILE for path in folder.iterdir())


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
