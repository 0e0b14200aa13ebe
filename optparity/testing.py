"""What the pytest plugin does once a test compares: run, judge, explain, and say how to do it again."""

import inspect
import json
import shlex
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pytest

from .around.piece import SIZES
from .explain import examine
from .explain.explaining import STEPS as EXPLAINED
from .parity.streams import STREAMS, gradients
from .report.page import Entry
from .versus import Mode, Named, Result, against, shapes
from .versus.shapes import Leaf

STEPS = 100  # as `optparity check`


class Parity:
    """The fixture `parity`: call it with two optimizers.

    Attributes:
        entries: what was compared in this test.
    """

    def __init__(self, test: str, folder: Path):
        self._test, self._folder = test, folder
        self.entries: list[Entry] = []

    def __call__(
        self,
        first: Any,
        second: Any,
        params: Any = None,
        gradients: Iterable | Callable | None = None,
        *,
        steps: int | None = None,
        stream: str = "normal",
        seed: int = 0,
        dtype: str | None = None,
        ulp: int = 0,
        rtol: float | None = None,
        atol: float | None = None,
        float64: bool = False,
        state_map: Mapping[str, str] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> Result:
        """Compare parameters and state after each step, and fail the test where they part.

        Args:
            first, second: each a `Named`, an optax transform, or a callable from a list of `torch.nn.Parameter` to a torch optimizer.
            params: a pytree of arrays, or of shapes as (24, 17), or a JSON file of shapes; several small leaves by default.
            gradients: an iterable of such pytrees, or a callable `(params, step) -> pytree`; by default a stream.
            steps: how many; 100 by default, or all gradients that are given.
            stream, seed: the gradients by name, as "normal" or "wide", and the seed of them and of parameters that are drawn.
            dtype: of parameters that are drawn; float32 by default.
            ulp: what is accepted, in representable numbers; 0: the bits are the same.
            rtol, atol: instead, |first - second| <= atol + rtol |second|.
            float64: whether both run in float64 too, to tell rounding from another formula.
            state_map: fields of the first's state -> fields of the second's that mean the same, beside the known ones.
            hyperparameters: what an optax transform does not say of itself, to explain a difference: `{"rule": "adam", "lr": 0.1}`. A
                `Named` says it.

        Raises: ValueError in one line for what cannot be compared.
        """
        mode = Mode(ulp, rtol, atol)
        if stream not in STREAMS:
            raise ValueError(f"parity: unknown stream {stream!r}; one of {', '.join(STREAMS)} is needed.")
        start = _params(params, dtype, seed, self._folder)
        steps = STEPS if steps is None and gradients is None else steps
        seen: list = []
        fed = _kept(_stream(stream, start, seed) if gradients is None else gradients, seen)
        result = against(first, second, start, fed, steps=steps, mode=mode, float64=float64, state_map=state_map)
        how = _How(params, stream, steps, seed, dtype, mode, float64, state_map or {})
        replay = (how.command(first, second) if gradients is None else "") or f"python -m pytest {shlex.quote(self._test)}"
        explanation = None if result.same else _explanation(first, second, start, seen, hyperparameters)
        self.entries.append(Entry(result.course, explanation, result.rounding, replay, _notes(result)))
        if not result.same:
            pytest.fail(_failure(result, explanation, replay), pytrace=False)
        return result

    def marked(self, *arguments: Any, **how: Any) -> None:
        """What a marker asks for; whatever is wrong with it fails the test in one line."""
        wrong = ""
        try:
            first, second = _named(arguments, how)
            self(first, second, **{key: value for key, value in how.items() if key not in _NAMES})
        except (ValueError, TypeError) as error:
            wrong = str(error)
        if wrong:  # after the except, so that no other error is shown
            pytest.fail(f"@pytest.mark.parity: {wrong}", pytrace=False)


_NAMES = {"jax", "torch", "set", "set_torch", "set_second"}
_KNOWN = _NAMES | set(inspect.signature(Parity.__call__).parameters) - {"self", "first", "second"}


def _named(arguments: Sequence[Any], how: Mapping[str, Any]) -> tuple[Named, Named]:
    """The two of a marker, JAX's first, with their arguments."""
    if arguments:
        raise ValueError(f'it takes names only, as jax="pkg:factory"; got {arguments[0]!r}.')
    if unknown := how.keys() - _KNOWN:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}; {', '.join(sorted(_KNOWN))} are known.")
    of_jax, of_torch = ([name] if isinstance(name := how.get(key, []), str) else list(name) for key in ("jax", "torch"))
    if len(of_jax) + len(of_torch) != 2:
        raise ValueError(f"two optimizers are needed, in jax=, torch=, or two of them in one; got {len(of_jax) + len(of_torch)}.")
    if "set_torch" in how and "set_second" in how:
        raise ValueError("set_torch and set_second are one thing; one is needed.")
    settings = iter([how.get("set", {}), how.get("set_torch", how.get("set_second", {}))])
    first, second = [*(Named("jax", name, next(settings)) for name in of_jax), *(Named("torch", name, next(settings)) for name in of_torch)]
    return first, second


def _params(params: Any, dtype: str | None, seed: int, folder: Path) -> Any:
    """A pytree of arrays: drawn, where shapes are given, or nothing is."""
    if params is None:
        params = SIZES
    if isinstance(params, str | Path):
        return shapes.drawn(shapes.read(folder / params), dtype, seed)
    if not _are_shapes(params):
        if dtype is not None:
            raise ValueError(f"parity: dtype={dtype} is of parameters that are drawn; these are given.")
        return params
    return shapes.drawn(jax.tree.map(lambda shape: Leaf(tuple(shape)), params, is_leaf=_is_shape), dtype, seed)


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(type(n) is int for n in value)


def _are_shapes(params: Any) -> bool:
    leaves = jax.tree.leaves(params, is_leaf=_is_shape)
    return isinstance(params, Mapping) and bool(leaves) and all(map(_is_shape, leaves))


def _stream(stream: str, params: Any, seed: int) -> Iterator:
    return gradients(stream, params, seed)


def _kept(source: Iterable | Callable, seen: list) -> Iterable | Callable:
    """The same gradients; the first of them are kept, to be explained."""
    if callable(source):

        def loop(params: Any, step: int) -> Any:
            gradient = source(params, step)
            if step <= EXPLAINED:
                seen.append(gradient)
            return gradient

        return loop

    def walk() -> Iterator:
        rest = iter(source)
        for gradient in islice(rest, EXPLAINED):
            seen.append(gradient)
            yield gradient
        yield from rest

    return walk()


def _explanation(first: Any, second: Any, params: Any, seen: Sequence, hyperparameters: Mapping[str, Any] | None) -> str:
    """Why they part, or what was tried."""
    try:
        return str(examine(first, second, params, seen, hyperparameters=hyperparameters))
    except ValueError as error:  # as where a gradient is None
        return f"Nothing was tried: {error}"


def _notes(result: Result) -> list[str]:
    compared = f"Compared: {', '.join(result.compared)}."
    return [compared, *(f"Not compared: {what}: {why}." for what, why in result.not_compared.items())]


def _failure(result: Result, explanation: str | None, replay: str) -> str:
    course = result.course
    lines = [f"{course.first} and {course.second} part (judged by {course.mode}):", f"  first: {course.parting}", f"  why: {explanation}"]
    for kind in ("another formula", "rounding", "unknown"):
        places = [str(place) for place, verdict in result.rounding.items() if verdict.kind == kind]
        if places:
            more = f", and {len(places) - 5} more" if len(places) > 5 else ""
            lines.append(f"  in float64: {kind} in {', '.join(places[:5])}{more}")
    return "\n".join([*lines, "  do it again:", *(f"    {line}" for line in replay.splitlines())])


class _How(NamedTuple):
    """How two optimizers were compared, where a stream fed them."""

    params: Any
    stream: str
    steps: int | None
    seed: int
    dtype: str | None
    mode: Mode
    float64: bool
    state_map: Mapping[str, str]

    def command(self, first: Any, second: Any) -> str:
        """`optparity check ...`, where everything has a name; else nothing."""
        if not (isinstance(first, Named) and isinstance(second, Named)):
            return ""
        if self.params is None:
            before, params = [], []
        elif isinstance(self.params, str | Path):
            before, params = [], ["--params", str(self.params)]
        elif _are_shapes(self.params):
            before, params = [f"echo {shlex.quote(json.dumps(self.params))} > shapes.json"], ["--params", "shapes.json"]
        else:
            return ""
        try:
            settings = [*_settings("--set", first), *_settings("--set-second", second)]
        except TypeError:  # no JSON, as a schedule
            return ""
        names = [word for named in (first, second) for word in (f"--{named.framework}", named.name)]
        roots = dict.fromkeys(root for named in (first, second) if (root := _root(named)))
        path = f"PYTHONPATH={shlex.quote(':'.join(roots))} " if roots else ""
        return "\n".join([*before, path + shlex.join(["optparity", "check", *names, *settings, *params, *self._options()])])

    def _options(self) -> list[str]:
        mode = self.mode
        given = {"--stream": self.stream, "--steps": self.steps, "--seed": self.seed or None, "--dtype": self.dtype}
        given |= {"--ulp": mode.ulp or None, "--rtol": mode.rtol, "--atol": mode.atol}
        words = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
        maps = [word for pair in self.state_map.items() for word in ("--state-map", "=".join(pair))]
        return [*words, *maps, *(["--float64"] if self.float64 else [])]


def _settings(flag: str, named: Named) -> list[str]:
    return [word for key, value in named.arguments.items() for word in (flag, f"{key}={json.dumps(value)}")]


def _root(named: Named) -> str:
    """The folder that must be on the path for its module to be found; nothing where it is installed, or in the working folder."""
    package = named.name.partition(":")[0].partition(".")[0]
    spec = find_spec(package)
    where = spec.origin if spec and spec.origin else ""
    if not where:
        return ""
    root = Path(where).parent if spec and spec.submodule_search_locations is None else Path(where).parent.parent
    installed = root.name in ("site-packages", "dist-packages") or root == Path(sysconfig.get_paths()["stdlib"])
    return "" if installed or root == Path.cwd() or str(root) not in sys.path else str(root)
