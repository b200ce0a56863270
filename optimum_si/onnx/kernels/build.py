"""Compiling the kernels.

The build of a wheel runs this file by itself, before anything is installed: the standard library must do for that.
"""

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
#: Behind the name of a library, the file with its SHA-256; and what compilations work in, followed by their process.
HASH, COMPILING = ".sha256", "compiling-"
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
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{COMPILING}{os.getpid()}-") as folder:
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
            record = Path(folder) / f"{path.name}{HASH}"
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
