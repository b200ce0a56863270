"""What a release holds, and that the pieces which state a fact about it agree."""

import ctypes
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

import optimum_si
from optimum_si.onnx.kernels import build as building


ROOT = Path(__file__).parents[2]


KERNELS = f"optimum_si/onnx/kernels/lib/{building.FILE_NAME}"


def built(folder: Path, **environment: str) -> Path:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, **environment})
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> ZipFile:
    return ZipFile(built(tmp_path_factory.mktemp("wheel"), **{building.COMPILER_VARIABLE: "none"}))


def test_without_a_compiler_the_wheel_is_pure_python(wheel):
    assert wheel.filename.endswith("-py3-none-any.whl") and KERNELS not in wheel.namelist()


def test_with_a_compiler_the_wheel_brings_kernels_for_its_platform(wheel, tmp_path):
    if building.compiler() is None:
        pytest.skip("no C++ compiler here")
    file = built(tmp_path / "built")
    compiled = ZipFile(file)
    assert set(compiled.namelist()) == {*wheel.namelist(), KERNELS, f"{KERNELS}.sha256"}
    assert "-py3-none-" in file.name and not file.name.endswith("-any.whl")
    library = ctypes.CDLL(compiled.extract(KERNELS, tmp_path))
    assert library.RegisterCustomOps and library.optimum_si_multiply


def test_the_wheel_adds_one_file_to_the_namespace_of_optimum(wheel):
    ours = [name for name in wheel.namelist() if name.startswith("optimum/")]
    assert ours == ["optimum/commands/register/register_si.py"], "an __init__.py there would shadow optimum itself"
    assert wheel.read(ours[0]) == (ROOT / "optimum_si/commands/register_si.py").read_bytes()


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel):
    files = (file for file in (ROOT / "optimum_si").rglob("*") if file.is_file())
    sources = {str(file.relative_to(ROOT)) for file in files if "__pycache__" not in file.parts}
    names = {name for name in wheel.namelist() if name.startswith("optimum_si/")}
    assert names == sources - {"optimum_si/commands/register_si.py"}
    assert {name.split("/")[0] for name in wheel.namelist()} == {
        "optimum",
        "optimum_si",
        f"optimum_si-{optimum_si.__version__}.dist-info",
    }


def test_the_metadata_state_version_license_and_extras(wheel):
    metadata = wheel.read(f"optimum_si-{optimum_si.__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {optimum_si.__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert set(re.findall(r"\nProvides-Extra: (\S+)", metadata)) == {
        "onnx",
        "onnx-gpu",
        "genai",
        "datasets",
        "eval",
        "gguf",
        "peft",
        "report",
        "demo",
        "realmodels",
        "dev",
    }


def test_the_wheel_registers_si_without_the_source_tree(wheel, tmp_path):
    wheel.extractall(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import optimum_si.commands.si as si; print(si.__file__)\n"
        "from optimum.commands.register import register_si\n"
        "print([command.COMMAND.name for command in register_si.REGISTER_COMMANDS])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=120
    )
    assert done.stdout.splitlines() == [str(tmp_path / "optimum_si/commands/si.py"), "['si']"]


def test_one_version_of_ruff_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert f"ruff{project['tool']['ruff']['required-version']}" in project["project"]["optional-dependencies"]["dev"]
