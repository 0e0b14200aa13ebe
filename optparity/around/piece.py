"""What stands around an optimizer's step, with a small optimizer in it, on both sides: what `check --around` iterates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optax

from ..registry import DTYPES, Refused

# Leaves of several shapes; the first axis of some divides by 8 devices.
SIZES = {"embedding": (16, 24), "kernel": (24, 17), "bias": (17,), "scale": ()}

DIGITS = ("hidden", "output")  # the leaves of the classifier of the digits


def named(params: list) -> dict[str, Any]:
    """torch's parameters by the names of the leaves that they stand for: of `SIZES`, or of the classifier of the digits."""
    names = sorted(SIZES) if len(params) == len(SIZES) else DIGITS if len(params) == len(DIGITS) else map(str, range(len(params)))
    return dict(zip(names, params, strict=True))


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One thing that stands around the step, in both packages.

    Attributes:
        name: as users and messages call it: the name in `jaxopt_impl`.
        rows: label -> arguments. "default" is the default; the others take every form and every flag.
        jax: of the arguments: an optax transform with an optimizer in it, so that parameters move.
        torch: of the arguments: what makes, of a list of parameters, an object with `step()`, which is called once for each gradient, and
            `state`, which has for each parameter the tensors of its state by the names that the fields of the transform's state have.
        state: the fields of the state that both sides have, of which a row may keep some only: what golden hashes are made of.
        stock_jax: the same of optax's parts (the nearest, where there is one).
        stock_torch: the same of torch's.
        refused: arguments that both sides refuse, and what they say.
        sampled: the rows that `make test` runs, where all of them would take long.
        dtypes: what leaves it is about.
        except_in: context -> why parity has no meaning there.
        measured: what the distance of stock is measured of: "params", or a field of the state.
        differs: why stock torch and stock optax end elsewhere, in a line.
    """

    name: str
    rows: Mapping[str, dict[str, Any]]
    jax: Callable[..., optax.GradientTransformation]
    torch: Callable[..., Callable[[list], Any]]
    state: tuple[str, ...] = ()
    stock_jax: Callable[..., optax.GradientTransformation | None] | None = None
    stock_torch: Callable[..., Callable[[list], Any] | None] | None = None
    refused: tuple[Refused, ...] = ()
    sampled: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] = DTYPES
    except_in: Mapping[str, str] = field(default_factory=dict)
    measured: str = "params"
    differs: str = ""
