"""The compiled library, if it is there, was built of these sources, and is not switched off by OPTPARITY_ONE_PASS=0."""

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from . import build, program

KINDS = {"float32": 0, "float64": 1, "bfloat16": 2, "float16": 3}  # as the library numbers them


KERNELS = ("adagrad", "adam", "lion", "momentum", "rmsprop", "sgd")
MODULES = {f"{package}.{kernel}" for package in ("jaxopt_impl", "torch_ref") for kernel in KERNELS}  # rules that can be recorded


class UnavailableError(Exception):
    """Why the library cannot be used, in a line."""


def available() -> ctypes.CDLL:
    """The library.

    Raises: UnavailableError, with the reason.
    """
    if os.environ.get("OPTPARITY_ONE_PASS") == "0":
        raise UnavailableError("switched off by OPTPARITY_ONE_PASS=0")
    found = _loaded()
    if isinstance(found, str):
        raise UnavailableError(found)
    return found


def is_available() -> bool:
    """Whether there is a library that can be used."""
    try:
        available()
    except UnavailableError:
        return False
    return True


def described() -> str:
    """What is used, or why it is not, in words."""
    try:
        return f"compiled, {available().one_pass_instructions().decode()} instructions"
    except UnavailableError as reason:
        return f"not used: {reason}"


@functools.cache
def _loaded() -> ctypes.CDLL | str:
    if not build.LIBRARY.exists():
        try:
            build.compiler()
        except build.NotBuiltError as error:
            return f"not built, {error}"
        return "not built; python -m one_pass.build builds it"
    try:
        library = ctypes.CDLL(str(build.LIBRARY))
        for name in ("one_pass_sources", "one_pass_instructions"):
            getattr(library, name).restype = ctypes.c_char_p
        library.one_pass_has.argtypes = [ctypes.c_char_p]
        library.one_pass_step.argtypes = [ctypes.c_char_p, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3]
    except (OSError, AttributeError) as error:
        return f"not loaded: {error}"
    if library.one_pass_sources().decode() != build.sources():
        return "built of other sources; python -m one_pass.build builds it anew"
    return library


class Kernel(NamedTuple):
    """A rule, as an optimizer has it."""

    step: Callable
    prepare: Callable | None  # None where it has none
    hyper: type


def find(kernel: Kernel, is_set: Callable[[str], bool]) -> program.Program | None:
    """The program of a kernel, if the library has it and may be used. One whose parts are not those of one module has none."""
    name = kernel.step.__module__
    module = sys.modules.get(name)
    if not is_available() or module is None or name not in MODULES:
        return None
    if tuple(getattr(module, part, None) for part in ("step", "prepare", "Hyper")) != tuple(kernel):
        return None
    found = program.recorded(module, is_set)
    return found if available().one_pass_has(found.name.encode()) else None
