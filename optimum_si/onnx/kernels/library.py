"""The compiled library: the one in the wheel, one compiled at first use into the user's cache, or none."""

import functools
import os
import subprocess
from pathlib import Path

from .build import (
    CACHE_VARIABLE,
    COMPILER_VARIABLE,
    FILE_NAME,
    KernelsUnavailable,
    compile_library,
    compiler,
    source_key,
)
from .trust import NotTrusted, intact_library, private_directory, remove_killed_compilations


#: Where a wheel has it.
INSTALLED = Path(__file__).parent / "lib"


@functools.cache
def library_path() -> Path:
    """The library for this machine, compiled if need be, which takes up to half a minute once.

    Raises:
        KernelsUnavailable: without a compiled library and without a working C++ compiler.
    """
    installed = INSTALLED / FILE_NAME
    if installed.is_file():
        if intact_library(installed, others=True):
            return installed
        raise KernelsUnavailable(
            f"{str(installed)!r} is not what was compiled: install optimum-si again (pip install --force-reinstall)."
        )
    command = compiler()
    if command is None:
        raise KernelsUnavailable(
            "sparse kernels are not compiled and no C++ compiler was found: install g++ or clang++, or name one in "
            f"${COMPILER_VARIABLE}."
        )
    try:
        directory = private_directory(cache_directory())
        remove_killed_compilations(directory)
        path = directory / f"{source_key(command)}-{FILE_NAME}"
        if not intact_library(path):
            compile_library(path, command)
    except NotTrusted as error:
        raise KernelsUnavailable(
            f"sparse kernels are not loaded: {error}. Set ${CACHE_VARIABLE} to a folder of your own."
        ) from error
    except (
        OSError,
        RuntimeError,
        ImportError,
        subprocess.SubprocessError,
    ) as error:  # no home, no rights, no compiler
        if isinstance(error, KernelsUnavailable):
            raise
        raise KernelsUnavailable(
            f"sparse kernels cannot be compiled: {error}. Name a writable place in ${CACHE_VARIABLE}, or another "
            f"compiler in ${COMPILER_VARIABLE}."
        ) from error
    return path


def cache_directory() -> Path:
    """Where libraries that were compiled on this machine are kept."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    import platformdirs

    # Without a home the path begins with "~", which expanding again refuses.
    return platformdirs.user_cache_path("optimum-si", appauthor=False).expanduser() / "kernels"
