"""Warnings that point at the user's own line, however deep inside the library they are raised."""

import os
import sys
import warnings
from pathlib import Path


_PACKAGE = str(Path(__file__).parent) + os.sep


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn the caller of optimum-si: the location of the warning is the line that called into this package.

    The outermost frame of the package counts: decorators and generators of other libraries may lie between its own.

    Args:
        message: what is the matter and what to do about it.
        category: class of the warning.
    """
    stacklevel, level, frame = 2, 1, sys._getframe().f_back
    while frame is not None:
        level += 1
        if frame.f_code.co_filename.startswith(_PACKAGE):
            stacklevel = level + 1
        frame = frame.f_back
    warnings.warn(message, category, stacklevel=stacklevel)
