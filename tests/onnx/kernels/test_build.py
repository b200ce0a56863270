"""The library comes from the wheel, from a compiler once, or not at all, and says so."""

import os
import shutil
import stat
import subprocess
import sys

import pytest

from optimum_si.onnx.kernels import KernelsUnavailable, library, library_path, trust
from optimum_si.onnx.kernels import build as building


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv(building.CACHE_VARIABLE, str(tmp_path / "cache"))
    library_path.cache_clear()
    yield tmp_path / "cache"
    library_path.cache_clear()


def fake_compiler(path, body):
    path.write_text(f"#!{sys.executable}\nimport sys\nwords = sys.argv[1:]\n{body}\n")
    path.chmod(0o755)
    return str(path)


COMPILES = """
if '--version' in words:
    print('fake 1.0'); sys.exit()
open(words[words.index('-o') + 1], 'w').write('made')
open({log!r}, 'a').write('x')
"""


def test_it_is_compiled_once_and_kept(cache, monkeypatch, tmp_path):
    log = tmp_path / "log"
    monkeypatch.setenv(building.COMPILER_VARIABLE, fake_compiler(tmp_path / "cxx", COMPILES.format(log=str(log))))
    path = library_path()
    assert path.read_text() == "made" and path.parent == cache
    calls = len(log.read_text())
    library_path.cache_clear()
    assert library_path() == path and len(log.read_text()) == calls
    assert sorted(file.name for file in cache.iterdir()) == [path.name, f"{path.name}.sha256"]


def test_other_flags_are_another_library(cache, monkeypatch, tmp_path):
    log = tmp_path / "log"
    monkeypatch.setenv(building.COMPILER_VARIABLE, fake_compiler(tmp_path / "cxx", COMPILES.format(log=str(log))))
    first = library_path()
    library_path.cache_clear()
    monkeypatch.setattr(building, "_FLAGS", (*building._FLAGS, "-g"))
    assert library_path() != first


def test_without_a_compiler_it_says_what_to_install(cache, monkeypatch):
    monkeypatch.setenv(building.COMPILER_VARIABLE, "none")
    with pytest.raises(KernelsUnavailable, match="install g\\+\\+ or clang\\+\\+"):
        library_path()


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(cache, monkeypatch, tmp_path):
    body = "print('no such header', file=sys.stderr); sys.exit(0 if '--version' in words else 3)"
    monkeypatch.setenv(building.COMPILER_VARIABLE, fake_compiler(tmp_path / "cxx", body))
    with pytest.raises(KernelsUnavailable, match="exit 3.*no such header"):
        library_path()
    assert list(cache.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(cache, monkeypatch, tmp_path):
    cache.write_text("a file")
    monkeypatch.setenv(building.COMPILER_VARIABLE, fake_compiler(tmp_path / "cxx", "print('1')"))
    with pytest.raises(KernelsUnavailable, match=f"Name a writable place in \\${building.CACHE_VARIABLE}"):
        library_path()


def test_what_a_wheel_brought_is_taken(cache, monkeypatch, tmp_path):
    installed = tmp_path / building.FILE_NAME
    installed.write_text("built")
    installed.with_name(f"{installed.name}.sha256").write_text(trust.digest(installed))
    monkeypatch.setattr(library, "INSTALLED", tmp_path)
    monkeypatch.setenv(building.COMPILER_VARIABLE, "none")
    assert library_path() == installed
    library_path.cache_clear()
    installed.write_text("built, and cut o")
    with pytest.raises(KernelsUnavailable, match="install optimum-si again"):
        library_path()


@pytest.fixture
def compiled(cache, monkeypatch, tmp_path):
    """A library in the cache, and how many files have been compiled since."""
    log = tmp_path / "log"
    monkeypatch.setenv(building.COMPILER_VARIABLE, fake_compiler(tmp_path / "cxx", COMPILES.format(log=str(log))))
    path = library_path()
    library_path.cache_clear()
    log.write_text("")
    return path, lambda: len(log.read_text())


@pytest.mark.parametrize("damage", ["cut off", "changed", "hash gone", "hash of another", "hash no text"])
def test_a_damaged_library_is_compiled_again_and_never_loaded(compiled, damage):
    path, calls = compiled
    record = path.with_name(f"{path.name}.sha256")
    if damage == "hash gone":
        record.unlink()
    elif damage.startswith("hash"):
        record.write_bytes(b"0" * 64 if "another" in damage else b"\xff\xfe")
    else:
        path.write_text({"cut off": "ma", "changed": "fade"}[damage])
    assert library_path() == path and calls() and path.read_text() == "made"
    assert record.read_text().strip() == trust.digest(path)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_others_can_write_is_not_loaded(compiled, which, mode):
    path, calls = compiled
    (path.parent if which == "folder" else path).chmod(mode)
    with pytest.raises(
        KernelsUnavailable, match=f"the {which} .* can be written by other users.*a folder of your own"
    ):
        library_path()
    assert not calls()


@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_belongs_to_another_is_not_loaded(compiled, monkeypatch, which):
    path, calls = compiled
    found = os.lstat

    def foreign(place):
        status = found(place)
        if (which == "folder") != stat.S_ISDIR(status.st_mode):
            return status
        return os.stat_result((*status[:4], status.st_uid + 1, *status[5:]))

    monkeypatch.setattr(trust.os, "lstat", foreign)
    with pytest.raises(KernelsUnavailable, match=f"the {which} .* belongs to another user"):
        library_path()
    assert not calls()


def test_a_link_to_a_library_is_not_loaded(compiled, tmp_path):
    path, _ = compiled
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KernelsUnavailable, match="is a link"):
        library_path()


def test_a_cache_relative_to_the_working_directory_is_not_used(cache, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(building.CACHE_VARIABLE, "cache")
    monkeypatch.setenv(building.COMPILER_VARIABLE, fake_compiler(tmp_path / "cxx", "print('1')"))
    with pytest.raises(KernelsUnavailable, match="no absolute path"):
        library_path()
    assert not (tmp_path / "cache").exists()


def test_a_compiler_in_the_working_directory_is_not_run(monkeypatch, tmp_path):
    fake_compiler(tmp_path / "c++", "open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(building.COMPILER_VARIABLE, raising=False)
    monkeypatch.delenv("CXX", raising=False)
    words = building.compiler()
    assert words is None or os.path.isabs(words[0])


def test_the_cache_is_for_nobody_else(compiled):
    path, _ = compiled
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_a_killed_compilation_left_is_removed(compiled):
    path, _ = compiled
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = f"{ended.pid}-a", f"{os.getpid()}-old", f"{os.getpid()}-b"
    killed, old, new = (path.parent / f"{building.COMPILING}{name}" for name in names)
    for folder in (killed, old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    library_path()
    assert not killed.exists() and not old.exists() and new.exists()


@pytest.mark.parametrize("name", building.TARGET_FLAGS)
def test_no_other_code_can_be_linked_to_the_functions_of_a_target(name, tmp_path):
    source, command = building.SOURCE / name, building.compiler()
    if command is None or shutil.which("nm") is None or source not in building.sources_here():
        pytest.skip("needs a C++ compiler for x86, and nm")
    made = tmp_path / "target.o"
    # Without optimization every function that is called is there.
    subprocess.run([*command, "-std=c++17", "-O0", *building.TARGET_FLAGS[name], "-c", source, "-o", made], check=True)
    words = ["nm", "--demangle", "--extern-only", "--defined-only", made]
    symbols = [line.split(maxsplit=2)[1:] for line in subprocess.check_output(words, text=True).splitlines()]
    functions = [function for kind, function in symbols if kind in "TW"]
    assert functions and all(function.startswith(f"si::{source.stem}::") for function in functions)
