"""Another library in the place of the installed one: built of sources that were changed, for the checks that have to find it."""

import contextlib
import importlib
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from one_pass import build, cpp, library
from one_pass.program import recorded
from torch_ref import one_pass

FUSED = ("-ffp-contract=fast", *(("-mfma",) if platform.machine() in ("x86_64", "AMD64") else ()))


class Change(NamedTuple):
    """A text in a file of native/, and what comes in its place."""

    file: str
    text: str
    instead: str


# Only Adam's rule, and only for PyTorch: what is left is compiled in seconds.
_XLA = (build.NATIVE / "library.cc").read_text().partition("namespace {\nnamespace ffi")[2]
_SMALL = (
    Change("library.cc", f"namespace {{\nnamespace ffi{_XLA}", ""),
    Change("library.cc", '#include "xla/ffi/api/ffi.h"\n', ""),
    Change("library.cc", "DO(adagrad) DO(adam) DO(lion) DO(momentum) DO(rmsprop) DO(sgd)", "DO(adam)"),
)


def changed_sources(folder: Path, changes: tuple[Change, ...] = ()) -> Path:
    """A changed copy of native/, with Adam's plain rule as `cpp` writes it now."""
    native = folder / "native"
    (native / "rules").mkdir(parents=True)
    for name in ("library.cc", "programs.h", "rounded.h"):
        shutil.copy(build.NATIVE / name, native)
    adam = recorded(importlib.import_module("jaxopt_impl.adam"), lambda name: False)
    (native / "rules" / "adam.cc").write_text(cpp.kernel("adam", [adam]))
    for file, text, instead in (*_SMALL, *changes):
        source = (native / file).read_text()
        assert text in source, f"{file} has no {text!r} any more"
        (native / file).write_text(source.replace(text, instead))
    return native


def built(folder: Path, changes: tuple[Change, ...] = (), flags: tuple[str, ...] = ()) -> Path:
    """A folder with a library of such sources, compiled with further flags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "NATIVE", changed_sources(folder, changes))
        build.build(flags, folder / build.LIBRARY.name)
    return folder


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """With the library of a folder, and its sources, in the place of the installed one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "LIBRARY", folder / build.LIBRARY.name)
        patch.setattr(build, "NATIVE", folder / "native")
        _forget()
        yield
    _forget()


def _forget() -> None:
    library._loaded.cache_clear()
    one_pass._found.cache_clear()
