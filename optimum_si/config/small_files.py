"""Reading a small file that anybody may have written: never a pipe or a device, never more than it may hold."""

import os
import stat
from pathlib import Path


#: Bytes of a recipe or a config that anybody has a use for.
LARGEST = 1 << 25


def read_small(file: str | Path, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: when it cannot be opened.
        ValueError: when it is no regular file, for which one might wait forever, or has more than ``largest`` bytes.
    """
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file")
        if found.st_size > largest:
            raise ValueError(f"it has {found.st_size:,} bytes, and more than {largest:,} are not read")
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            return opened.read(largest)
    finally:
        os.close(descriptor)
