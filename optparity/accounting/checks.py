"""What a configuration may hold, and what is said when it does not: who, rule, got."""

from collections.abc import Collection, Mapping
from numbers import Real
from typing import Any

from jaxopt_impl import checks as of_optimizers
from jaxopt_impl import numerics as nx

from ..registry import OPTIMIZERS


def size(who: str, least: int = 1, **sizes: Any) -> None:
    for name, value in sizes.items():
        if type(value) is not int or value < least:
            raise ValueError(f"{who}: {name} is an integer >= {least}; got {value!r}.")


def at_most(who: str, most: int, **sizes: int) -> None:
    for name, value in sizes.items():
        if value > most:
            raise ValueError(f"{who}: {name} is at most {most}; got {value}.")


def one_of(who: str, known: Collection[Any], **choices: Any) -> None:
    for name, value in choices.items():
        if not any(type(value) is type(one) and value == one for one in known):  # a value need not be hashable, and True is not 1
            raise ValueError(f"{who}: {name} is one of {', '.join(map(str, known))}; got {value!r}.")


def flag(who: str, **flags: Any) -> None:
    for name, value in flags.items():
        if type(value) is not bool:
            raise ValueError(f"{who}: {name} is true or false; got {value!r}.")


def dtype(who: str, name: Any) -> None:
    one_of(who, nx.DTYPES, dtype=name)


def divides(who: str, divisor_name: str, divisor: int, name: str, value: int) -> None:
    if value % divisor:
        raise ValueError(f"{who}: {divisor_name} divides {name}; got {divisor} and {value}.")


def options(optimizer: str, given: Mapping[str, Any]) -> None:
    """Arguments of one of `optparity.OPTIMIZERS` are of the kind that they are by default; ranges are the optimizer's own to check.

    Flags are true or false; numbers are int or float and not bool, the learning rate also a schedule; `accumulator_dtype` is "float32"
    or None, `mu_dtype` "bfloat16" or None.

    Raises: ValueError, one line, for an unknown optimizer or argument, or a value of another kind.
    """
    if not isinstance(optimizer, str) or optimizer not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {optimizer!r}; one of {', '.join(OPTIMIZERS)} is needed.")
    if not isinstance(given, Mapping):
        raise ValueError(f"{optimizer}: options are a mapping of names to values; got {given!r}.")
    known = OPTIMIZERS[optimizer].defaults
    for name, value in given.items():
        one_of(optimizer, known, option=name)
        if isinstance(known[name], bool):
            flag(optimizer, **{name: value})
        elif name == "accumulator_dtype":
            of_optimizers.accumulator(optimizer, value)
        elif name == "mu_dtype":
            of_optimizers.first_moment(optimizer, value)
        elif not (name == "learning_rate" and callable(value)):
            _number(optimizer, name, value)


def _number(who: str, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{who}: {name} is a number; got {value!r}.")
    try:
        float(value)
    except OverflowError:
        raise ValueError(f"{who}: {name} is a number that float64 has; got one too large.") from None
