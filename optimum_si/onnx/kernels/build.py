"""The compiled library: the one in the wheel, one compiled at first use into the user's cache, or none.

The build of a wheel runs this file by itself, before anything is installed: the standard library must do for that.
"""

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


SOURCE = Path(__file__).parent / "source"
#: The library, in wheels and caches.
FILE_NAME = "optimum_si_kernels" + {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
#: Where a wheel has it.
INSTALLED = Path(__file__).parent / "lib"
#: Where to compile into instead of the user's cache, and a compiler to use; "none" is none.
CACHE_VARIABLE, COMPILER_VARIABLE = "OPTIMUM_SI_KERNEL_CACHE", "OPTIMUM_SI_CXX"

_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall")
_LINK = ("-shared", "-static-libstdc++", "-static-libgcc")
_AVX2 = ("-mavx2", "-mfma", "-mf16c", "-mbmi2")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vbmi2", "-mavx512vnni")
#: Instructions that the file of a target may use; the library asks the machine before it runs them.
TARGET_FLAGS = {"avx2.cpp": _AVX2, "avx512.cpp": _AVX2 + _AVX512}
_SECONDS = 300


class KernelsUnavailable(RuntimeError):
    """There is no compiled library and none can be made; the message says why and what to do."""


@functools.cache
def library_path() -> Path:
    """The library for this machine, compiled if need be, which takes up to half a minute once.

    Raises:
        KernelsUnavailable: without a compiled library and without a working C++ compiler.
    """
    from .trust import NotTrusted, intact_library, private_directory, remove_killed_compilations

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


def compiler() -> list[str] | None:
    """The command of a C++ compiler, from the environment or the usual names."""
    chosen = os.environ.get(COMPILER_VARIABLE) or os.environ.get("CXX")
    if chosen == "none":
        return None
    candidates = [shlex.split(chosen)] if chosen else [["c++"], ["g++"], ["clang++"]]
    for words in candidates:
        found = shutil.which(words[0]) if words else None
        if found and os.path.isabs(found):  # not one that lies in the working directory
            return [found, *words[1:]]
    return None


def compile_library(path: Path, command: list[str]) -> None:
    """Compile and link all sources; the library appears when it is complete, whoever else compiles it meanwhile.

    Raises:
        KernelsUnavailable: with what the compiler said, or why the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"compiling-{os.getpid()}-") as folder:
            sources = sources_here()
            objects = [Path(folder) / f"{source.stem}.o" for source in sources]

            def compiled(source: Path, made: Path) -> None:
                _run([*command, *_FLAGS, *TARGET_FLAGS.get(source.name, ()), "-c", str(source), "-o", str(made)])

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(compiled, sources, objects))
            made = Path(folder) / path.name
            link = [flag for flag in _LINK if sys.platform != "darwin" or not flag.startswith("-static")]
            _run([*command, *link, *map(str, objects), "-o", str(made)])
            # The record first: a library without one is compiled again, never loaded.
            record = Path(folder) / f"{path.name}.sha256"
            record.write_text(hashlib.sha256(made.read_bytes()).hexdigest() + "\n", encoding="ascii")
            record.replace(path.with_name(record.name))
            made.replace(path)
    except OSError as error:
        raise KernelsUnavailable(
            f"sparse kernels cannot be compiled into {str(path.parent)!r}: {error}. Name a writable place in "
            f"${CACHE_VARIABLE}."
        ) from error


def sources_here() -> list[Path]:
    """Files that this machine's library is compiled from."""
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return [file for file in sorted(SOURCE.glob("*.cpp")) if on_x86 or file.name not in TARGET_FLAGS]


def source_key(command: list[str]) -> str:
    """Digest of the sources, flags, compiler and machine: whatever changes the library changes its name."""
    digest = hashlib.sha256()
    for source in sorted(SOURCE.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    version = subprocess.run([*command, "--version"], capture_output=True, timeout=_SECONDS).stdout
    for word in (*_FLAGS, *_LINK, *sum(TARGET_FLAGS.values(), ()), platform.machine(), sys.platform):
        digest.update(word.encode() + b"\0")
    digest.update(version)
    return digest.hexdigest()[:16]


def _run(words: list[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise KernelsUnavailable(f"{words[0]} took more than {_SECONDS} s to compile the sparse kernels.") from error
    if done.returncode:
        raise KernelsUnavailable(
            f"{words[0]} could not compile the sparse kernels (exit {done.returncode}): {done.stderr.strip()[-600:]}"
        )
