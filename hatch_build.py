"""Compiles one_pass/native when a wheel is built. Where that cannot be done the wheel goes without the library, and says why."""

import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags


class CompiledLibrary(BuildHookInterface):
    """The hook that pyproject.toml names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """An editable wheel leaves the library in the checkout. A standard one takes it along, and leaves the checkout as it is."""
        one_pass = _loaded(Path(self.root) / "one_pass" / "build.py")
        self.folder = tempfile.TemporaryDirectory()
        library = one_pass.LIBRARY if version == "editable" else Path(self.folder.name) / one_pass.LIBRARY.name
        try:
            one_pass.build(library=library)
        except one_pass.NotBuiltError as error:
            self.app.display_warning(f"one_pass: not compiled, steps take several passes: {error}")
            return
        if version == "standard":
            build_data["force_include"][str(library)] = f"one_pass/{library.name}"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform()}"  # it is called through C interfaces, none of which is Python's own

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """What was compiled is in the wheel."""
        self.folder.cleanup()


def _loaded(path: Path) -> ModuleType:
    """A module by its path: the package around it may lack what it needs."""
    spec = importlib.util.spec_from_file_location("one_pass_build", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _platform() -> str:
    """This machine's, as `linux_x86_64`: manylinux promises more, which `make wheels` checks."""
    return next(tag.platform for tag in sys_tags() if not tag.platform.startswith(("manylinux", "musllinux")))
