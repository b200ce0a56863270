"""Compiles the kernels when a wheel is built, where there is a compiler; without one the wheel is pure Python."""

import importlib.util
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelBuildHook(BuildHookInterface):
    """Adds the library to the wheel, which then is for one platform and any Python 3: it needs neither's symbols."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into a folder of the build, and name the platform."""
        if version == "editable":  # compiled at first use instead, again whenever the sources change
            return
        building = _building(Path(self.root))
        command = building.compiler()
        if command is None:
            return
        library = Path(self.directory) / "kernels" / building.FILE_NAME
        try:
            building.compile_library(library, command)
        except building.KernelsUnavailable as error:
            self.app.display_warning(f"the wheel gets no sparse kernels: {error}")
            return
        for file in (library, library.with_name(library.name + building.HASH)):
            build_data["force_include"][str(file)] = f"optimum_si/onnx/kernels/lib/{file.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"


def _building(root: Path) -> Any:
    """``build.py`` alone: the package itself needs what is not installed yet."""
    path = root / "optimum_si" / "onnx" / "kernels" / "build.py"
    spec = importlib.util.spec_from_file_location("kernel_building", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _platform() -> str:
    name = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if sys.platform == "linux":  # nothing but libc and libm is linked: of this machine's version or newer
        family, release = platform.libc_ver()
        if family == "glibc":
            major, minor = release.split(".")[:2]
            return f"manylinux_{major}_{minor}_{platform.machine()}"
    return name
