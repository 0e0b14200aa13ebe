"""No step touches memory beside its arrays, does what C++ leaves open, or shares memory between threads, as the sanitizers see it."""

import importlib
import subprocess
from pathlib import Path

import pytest

from one_pass import build

from .libraries import Change, changed_sources
from .test_written import PROGRAMS

DRIVER = Path(__file__).with_name("driver.cc")
NAMES = "".join(
    f"{program.name} {len(importlib.import_module(f'jaxopt_impl.{kernel}').Hyper._fields) + 1} {len(program.fields)}\n"
    for kernel, programs in PROGRAMS.items()
    for program in programs
)


def run(folder: Path, sanitizer: str, names: str) -> subprocess.CompletedProcess:
    """The driver with a library, both compiled with a sanitizer."""
    flags = (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-g1")
    library, driver = build.build(flags, folder / build.LIBRARY.name), folder / "driver"
    subprocess.run(
        [build.compiler(), *flags, "-std=c++17", str(DRIVER), str(library), f"-Wl,-rpath,{folder}", "-o", str(driver)], check=True
    )
    return subprocess.run([str(driver)], input=names, capture_output=True, text=True, check=False)


@pytest.mark.exhaustive
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_nothing_is_found(sanitizer, tmp_path):
    done = run(tmp_path, sanitizer, NAMES)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{32 * len(NAMES.splitlines())} steps\n"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("sanitizer", "change", "said"),
    [
        ("address,undefined", Change("library.cc", "last = std::min(to - at, leaf.n)", "last = to - at"), "heap-buffer-overflow"),
        ("address,undefined", Change("library.cc", "(array) + i * SIZES[kind]", "(array) + i * SIZES[kind] + 1"), "misaligned address"),
        ("thread", Change("library.cc", "end_of(j, k, elements));", "end_of(j, k, elements) + 16 * (j < k - 1));"), "data race"),
    ],
)
def test_a_planted_fault_is_found(sanitizer, change, said, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "NATIVE", changed_sources(tmp_path, (change,)))
    done = run(tmp_path, sanitizer, next(line for line in NAMES.splitlines() if line.startswith("adam")))
    assert done.returncode
    assert said in done.stderr
