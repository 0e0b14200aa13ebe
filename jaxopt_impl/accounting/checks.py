"""What a configuration may hold, and what is said when it does not: who, rule, got."""

from collections.abc import Collection
from typing import Any


def size(who: str, least: int = 1, **sizes: Any) -> None:
    for name, value in sizes.items():
        if type(value) is not int or value < least:
            raise ValueError(f"{who}: {name} is an integer >= {least}; got {value!r}.")


def one_of(who: str, known: Collection[Any], **choices: Any) -> None:
    for name, value in choices.items():
        if value not in known:
            raise ValueError(f"{who}: {name} is one of {', '.join(map(str, known))}; got {value!r}.")


def flag(who: str, **flags: Any) -> None:
    for name, value in flags.items():
        if type(value) is not bool:
            raise ValueError(f"{who}: {name} is true or false; got {value!r}.")


def divides(who: str, divisor_name: str, divisor: int, name: str, value: int) -> None:
    if value % divisor:
        raise ValueError(f"{who}: {divisor_name} divides {name}; got {divisor} and {value}.")
