"""Compiles native/ into a library beside this file: called when the package is built, or by `python -m one_pass.build`.

It imports nothing of the project, so that a build can load it by its path.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
NATIVE = HERE / "native"
LIBRARY = HERE / "libonepass.so"
# Each operation rounds once: no contraction, and nothing of -ffast-math but that no errno is set and no trap is taken.
ROUNDED_ONCE = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
FLAGS = (*ROUNDED_ONCE, "-fPIC", "-fvisibility=hidden", "-DNDEBUG")
# What is used of C++'s own library is within: no other version is needed, none is given away, and glibc may be older (2.34, not 2.36).
LINKED = ("-pthread", *(("-static-libstdc++", "-Wl,--exclude-libs,ALL", "-Wl,--gc-sections") if sys.platform == "linux" else ()))
INSTRUCTIONS = {"plain": (), **({"avx2": ("-mavx2",)} if platform.machine() in ("x86_64", "AMD64") else {})}


class NotBuiltError(Exception):
    """Why there is no library, in a line."""


def sources() -> str:
    """A hash of everything that the library is made of."""
    files = sorted(path for path in NATIVE.rglob("*") if path.suffix in (".cc", ".h"))
    found = hashlib.sha256(repr((FLAGS, sorted(INSTRUCTIONS))).encode())
    for path in files:
        found.update(path.relative_to(NATIVE).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def compiler() -> str:
    """The C++ compiler: $CXX, or the first of the usual names that is there."""
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if path := shutil.which(name):
            return path
    raise NotBuiltError("no C++ compiler was found: neither $CXX nor c++, g++ or clang++")


def headers() -> Path:
    """XLA's, as jaxlib has them."""
    spec = find_spec("jaxlib")
    if spec is None or spec.origin is None:
        raise NotBuiltError("jaxlib is not installed, whose headers are needed")
    return Path(spec.origin).parent / "include"


def build(flags: tuple[str, ...] = (), library: Path = LIBRARY) -> Path:
    """Compile the library, and put it in its place when it is whole.

    Raises: NotBuiltError, with the reason.
    """
    try:
        return _built(compiler(), headers(), flags, library)
    except OSError as error:
        raise NotBuiltError(str(error)) from None


def _built(cxx: str, include: Path, flags: tuple[str, ...], library: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=library.parent) as name:
        folder = Path(name)
        rules = sorted((NATIVE / "rules").glob("*.cc"))
        jobs = [
            ([*extra, f"-DINSTRUCTIONS={instructions}", str(path)], folder / f"{path.stem}_{instructions}.o")
            for path in rules
            for instructions, extra in INSTRUCTIONS.items()
        ]
        own = [f'-DSOURCES="{sources()}"', "-isystem", str(include), str(NATIVE / "library.cc")]
        jobs.append((own, folder / "library.o"))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: _run([cxx, *FLAGS, *flags, *job[0], "-c", "-o", str(job[1])]), jobs))
        linked = folder / LIBRARY.name
        _run([cxx, "-shared", *flags, *LINKED, *(str(o) for _, o in jobs), "-o", str(linked)])
        os.replace(linked, library)
    return library


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()
        raise NotBuiltError(f"{Path(command[0]).name} failed: {next((line for line in said if 'error' in line), said[-1])}")


if __name__ == "__main__":
    try:
        print(build())
    except NotBuiltError as error:
        sys.exit(f"one_pass: not built: {error}")
