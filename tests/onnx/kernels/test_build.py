"""The library comes from the wheel, from a compiler once, or not at all, and says so."""

import shutil
import subprocess
import sys

import pytest

from optimum_si.onnx.kernels import KernelsUnavailable, library_path
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
    assert [file.name for file in cache.iterdir()] == [path.name]


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
    monkeypatch.setattr(building, "INSTALLED", tmp_path)
    monkeypatch.setenv(building.COMPILER_VARIABLE, "none")
    assert library_path() == installed


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
