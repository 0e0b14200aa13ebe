"""No step reads or writes beside its arrays, does what C++ leaves open, or shares memory between threads: as the compiler's checks see it."""

import os
import subprocess

import pytest

from one_pass import build
from one_pass.program import Program
from tools import one_pass as tool

from .test_written import PROGRAMS

HERE = os.path.dirname(__file__)
SANITIZERS = ["address,undefined", "thread"]


def run(folder, flag: str, lines: str, source: str | None = None) -> subprocess.CompletedProcess:
    """The driver with a library of which each part was compiled with a flag."""
    flags = (flag, "-fno-sanitize-recover=all", "-g1")
    found = build.build(flags, folder / build.LIBRARY.name)
    driver = folder / "driver"
    command = [build.compiler(), *flags, "-std=c++17", "-O1", os.path.join(HERE, "driver.cc"), str(found), "-Wl,-rpath," + str(folder), "-o", str(driver)]
    subprocess.run(command, check=True)
    return subprocess.run([str(driver)], input=lines, capture_output=True, text=True, check=False)
