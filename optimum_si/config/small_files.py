"""Reading a small file that anybody may have written: never a pipe or a device, never more than it may hold."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


#: Bytes of a recipe or a config that anybody has a use for.
LARGEST = 1 << 25


@contextmanager
def opened_regular(file: str | Path) -> Iterator[BinaryIO]:
    """A regular file, open for reading.

    Raises:
        OSError: when it cannot be opened.
        ValueError: when it is no regular file, for which one might wait forever.
    """
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is no regular file")
    with os.fdopen(descriptor, "rb") as opened:
        yield opened


def read_small(file: str | Path, largest: int = LARGEST) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: when it cannot be opened.
        ValueError: when it is no regular file, or has more than ``largest`` bytes.
    """
    with opened_regular(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > largest:
            raise ValueError(f"it has {size:,} bytes, and more than {largest:,} are not read")
        return opened.read(largest)
