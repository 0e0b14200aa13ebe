"""Programs that break the contract: what guards it must turn red on each."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.sides import by_rule, unfenced
from jaxopt_impl import numerics as nx
from optparity.accelerators import programs
from optparity.accelerators.programs import Built, Program
from optparity.registry import Row


@contextlib.contextmanager
def _replaced(name: str, value: Any) -> Iterator[None]:
    kept = getattr(nx, name)
    setattr(nx, name, value)
    try:
        yield
    finally:
        setattr(nx, name, kept)


def without_zeros():
    """The barrier is there, and float64 on the way to a quotient."""
    return _replaced("signed_zero", lambda x, *others: jnp.zeros([], x.dtype))


def without_fences():
    """Values are not fenced; divisors are."""
    return _replaced("fence", lambda x: x)


def without_fences_around_float64():
    """A quotient in float64 is narrowed as it is."""

    def through_float64(operation, *operands):
        with jax.enable_x64(True):
            return operation(*(x.astype("float64") for x in operands)).astype("float32")

    return _replaced("_through_float64", through_float64)


def without_remainders():
    """The quotients and roots of every backend are taken as they are."""
    return _replaced("_exact", lambda value, *others: value)


def without_roundings():
    """Half precision is rounded where a result is stored, and nowhere else."""
    return _replaced("_ROUND", dict.fromkeys(nx.HALVES, lambda x: x))


BREAKS = {
    f.__name__: f for f in (unfenced, without_zeros, without_fences, without_fences_around_float64, without_remainders, without_roundings)
}


def build(of: tuple[str, Callable[[Any, str], Built], Any], dtype: str) -> Built:
    """A program of `programs`, traced within one of `BREAKS`."""
    name, intact, its_own = of
    built = intact(its_own, dtype)

    def function(*arguments):
        with by_rule(), BREAKS[name]():  # the compiled pass would have the rule traced after this
            return built.function(*arguments)

    return built._replace(function=function)


def intact(program: Program) -> Program:
    """The program that is broken."""
    _, build_it, of = program.of
    return Program("", build_it, of, program.dtype)


def _broken(context: Callable, intact: Callable[[Any, str], Built], of: Any, dtype: str) -> Program:
    return Program(f"{of} | {dtype} | {context.__name__}", build, (context.__name__, intact, of), dtype)


SEEN = (  # in the instructions
    _broken(unfenced, programs.train_step, Row("adagrad", "default"), "float32"),
    _broken(unfenced, programs.train_step, Row("adagrad", "default"), "float64"),
    _broken(unfenced, programs.train_step, Row("rmsprop", "all"), "float16"),
    _broken(without_fences_around_float64, programs.train_step, Row("adagrad", "default"), "float32"),
    _broken(without_fences_around_float64, programs.train_step, Row("adam", "default"), "float32"),
    _broken(without_fences_around_float64, programs.train_step, Row("adam", "default"), "float16"),
    _broken(without_fences_around_float64, programs.fenced_canary, "a / c", "float32"),
)
UNSEEN = (  # there: each of them rounds once, but they are not those of the rule
    _broken(without_zeros, programs.train_step, Row("adam", "all"), "float32"),
    _broken(without_fences, programs.fenced_canary, "(a*0.1)*0.3", "float32"),
    _broken(without_fences, programs.fenced_canary, "(a/d)/c", "float64"),
)

APPROXIMATE = (  # on a TPU
    *(_broken(unfenced, programs.train_step, Row("adagrad", "default"), dtype) for dtype in ("float32", *nx.HALVES)),
    *(_broken(without_remainders, programs.train_step, Row("adagrad", "default"), dtype) for dtype in ("float32", *nx.HALVES)),
)
FOLDED = _broken(without_fences, programs.fenced_canary, "(a*0.1)*0.3", "float32")
NOT_ROUNDED = tuple(_broken(without_roundings, programs.train_step, Row("sgd", "all"), dtype) for dtype in nx.HALVES)


def signed_bits(_, dtype: str) -> Built:
    """A number that is fenced in float64, by a sign bit in an int64."""

    def fenced(x):
        with jax.enable_x64(True):
            wide = x.astype("float64")
            sign = lax.bitcast_convert_type(wide, "int64") & np.int64(-(2**63))
            return (wide + lax.bitcast_convert_type(sign, "float64")).astype(dtype)

    return Built(fenced, (jax.ShapeDtypeStruct((), dtype),))


SIGNED = Program("a sign bit in int64", signed_bits, None, "float32")
