"""What holds of the library in use: each of these fails where a library is built wrong, as test_planted.py shows."""

import contextlib
import ctypes
import ctypes.util
import functools
from collections.abc import Iterator, Sequence

import ml_dtypes
import numpy as np
import pytest
import torch

from one_pass import library
from one_pass.program import Program
from optparity._arrays import to_numpy, to_torch
from optparity.parity.bits import differing
from optparity.registry import Row
from torch_ref import adam, one_pass

PART = 1 << 14  # elements for which the library takes another thread
SIZES = (0, 1, 7, 15, 16, 17, 1023, 1024, 1025, PART - 1, PART + 1, 3 * PART + 5)
DTYPES = {"float32": np.float32, "float64": np.float64, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """The programs that steps go through, in a list that grows."""
    taken: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        step = one_pass.step
        patch.setattr(one_pass, "step", lambda program, *rest: (taken.append(program.name), step(program, *rest)))
        yield taken


def random(shape, dtype: str, seed: int, scale: float = 1) -> torch.Tensor:
    """Normal numbers over six orders of magnitude."""
    rng = np.random.default_rng(seed)
    return to_torch((scale * rng.standard_normal(shape) * 10 ** rng.uniform(-3, 3, shape)).astype(DTYPES[dtype]))


def same_bits(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> None:
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        found = np.flatnonzero(differing(to_numpy(a), to_numpy(b)))
        assert not found.size, f"tensor {i} of shape {tuple(a.shape)}: {found.size} elements differ, the first is {found[0]}"


def outcome(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters and their state."""
    leaves = [p for group in optimizer.param_groups for p in group["params"]]
    return [p.detach() for p in leaves] + [x for p in leaves for x in optimizer.state[p].values() if x is not None and x.shape == p.shape]


def stepped(make, shapes, dtype: str, steps: int = 2, **group) -> list[torch.Tensor]:
    """Parameters and state after some steps."""
    leaves = [torch.nn.Parameter(random(shape, dtype, i)) for i, shape in enumerate(shapes)]
    optimizer = make([{"params": leaves, **group}])
    for t in range(steps):
        for i, p in enumerate(leaves):
            p.grad = random(p.shape, dtype, 100 + 10 * t + i)
        optimizer.step()
    return outcome(optimizer)


def steps_are_the_rules(row: Row, dtype: str) -> None:
    """Leaves of all sizes in one call, and by 1, 2 and 3 threads: the bits of the rule."""
    shapes = [(), *((n,) for n in SIZES)]
    expected = stepped(row.torch, shapes, dtype, foreach=False)
    for count in (1, 2, 3):
        with threads(count), counted() as taken:
            same_bits(stepped(row.torch, shapes, dtype), expected)
        assert len(taken) == 2, f"{len(taken)} of 2 steps went through the library"


def each_size_alone(row: Row, dtype: str) -> None:
    for n in SIZES:
        expected = stepped(row.torch, [(n,)], dtype, steps=1, foreach=False)
        for count in (1, 3):
            with threads(count):
                same_bits(stepped(row.torch, [(n,)], dtype, steps=1), expected)


class _Environment(ctypes.Structure):
    """x86's fenv_t."""

    _fields_ = (("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32))


@functools.cache
def _libm() -> ctypes.CDLL:
    return ctypes.CDLL(ctypes.util.find_library("m"))


def mxcsr(new: int | None = None) -> int:
    """The word of the calling thread that says how subnormals are treated, without what has happened so far; and a new one."""
    environment = _Environment()
    _libm().fegetenv(ctypes.byref(environment))
    before = environment.mxcsr & ~0x3F
    if new is not None:
        environment.mxcsr = new
        _libm().fesetenv(ctypes.byref(environment))
    return before


WORDS = {"as it starts": 0x1F80, "both flushed": 0x9FC0, "results flushed": 0x9F80, "operands flushed": 0x1FC0, "rounded down": 0x3F80}


def the_word_is_put_back(word: int) -> None:
    """MXCSR is as before after a call, of one thread and of two."""
    program = _plain_adam()
    h = np.array([1e-3, 0.9, 0.999, 1e-8, *[0.0] * 8, 1.0])
    kinds = np.zeros(3 + len(program.fields), np.int64)
    arrays = [np.zeros(2 * PART, np.float32) for _ in range(2 + len(program.fields))]
    g, p, *fields = (x.ctypes.data for x in arrays)
    table = np.array([2 * PART, g, p, p, *(x for field in fields for x in (field, field))])
    pointers = [x.ctypes.data for x in (h, kinds, table)]
    step = library.available().one_pass_step
    for count in (1, 2):
        before = mxcsr(word)
        try:
            assert step(program.name.encode(), *pointers, 1, 1, count) == 0
        finally:
            after = mxcsr(before)
        assert after == word, f"{count} threads: MXCSR was {word:#x} and is {after:#x}"


def subnormals_are_flushed_as_torch_says() -> None:
    """With `torch.set_flush_denormal` all elements are 0, whichever thread steps them, without it none is."""
    for flushed in (True, False):
        for count in (1, 2):
            p = torch.nn.Parameter(torch.zeros(3 * PART + 5))
            p.grad = torch.full_like(p, 1e-39)
            optimizer = Row("adam", "default").torch([p])
            assert torch.set_flush_denormal(flushed)
            try:
                with threads(count), counted() as taken:
                    optimizer.step()
            finally:
                torch.set_flush_denormal(False)
            assert len(taken) == 1
            zeros = int((optimizer.state[p]["exp_avg"].view(torch.int32) == 0).sum())
            assert zeros == flushed * p.numel(), f"{count} threads, flushed={flushed}: {zeros} of {p.numel()} are 0"


def _plain_adam() -> Program:
    program = library.find(library.Kernel(adam.step, adam.prepare, adam.Hyper), lambda name: False)
    assert program is not None, "the library lacks Adam"
    return program


def converted(x: np.ndarray, to: str, computed_in: str = "float32") -> np.ndarray:
    """x, brought to `computed_in`, and stored in another dtype: Adam's first mean where β₁ = 0 and the mean was -0."""
    program = _plain_adam()
    x = np.ascontiguousarray(x)
    m, v, u = (np.full(x.size, -0.0, DTYPES[kind]) for kind in (to, computed_in, computed_in))
    h = np.array([0.0, 0.0, 0.5, 1.0, *[0.0] * 8, 1.0])
    kinds = np.array([library.KINDS[kind] for kind in (computed_in, computed_in, x.dtype.name, to, computed_in)])
    table = np.array([x.size, x.ctypes.data, 0, u.ctypes.data, *[m.ctypes.data] * 2, *[v.ctypes.data] * 2])
    pointers = [array.ctypes.data for array in (h, kinds, table)]
    assert library.available().one_pass_step(program.name.encode(), *pointers, 1, 0, 1) == 0
    return m


def _interesting() -> np.ndarray:
    """float32: every half and what lies around it and between it and the next, the ends of the ranges, and random bits."""
    halves = np.arange(2**16, dtype=np.uint16)
    floats = [halves.view(dtype).astype(np.float32).view(np.uint32) for dtype in (np.float16, ml_dtypes.bfloat16)]
    near = np.array([-1, 0, 1], np.int64)
    ties = [bits.astype(np.int64)[:, None] + middle + near for bits, middle in zip(floats, (0x1000, 0x8000), strict=True)]
    ends = np.array(
        [65504, 65519.996, 65520, 65536, 2.0**-14, 2.0**-24, 2.0**-25, 2.0**-26, 2.0**-126, 2.0**-133, 2.0**-134, 3.4e38], np.float32
    )
    spread = (np.concatenate([ends, -ends]).view(np.uint32).astype(np.int64)[:, None] + np.arange(-4, 5)).ravel()
    small = (np.arange(-2048, 2049) / 2.0**25).astype(np.float32).view(np.uint32)  # ties of float16's subnormals
    words = np.random.default_rng(0).integers(0, 2**32, 2**18)
    every = [*floats, *(tie.ravel() for tie in ties), spread, small, words]
    return np.concatenate([bits.astype(np.int64) & 0xFFFFFFFF for bits in every]).astype(np.uint32).view(np.float32)


@np.errstate(over="ignore", invalid="ignore")
def rounding_is_the_others(x: np.ndarray | None = None) -> None:
    """float32 to the halves as NumPy and ml_dtypes round it."""
    x = _interesting() if x is None else x
    for to in ("bfloat16", "float16"):
        expected = x.astype(DTYPES[to])
        ours = converted(x, to)
        found = np.flatnonzero(differing(ours, expected))
        assert not found.size, f"{to} of {x[found[0]].item().hex()}: {ours[found[0]]}, not {expected[found[0]]}; {found.size} differ"


@np.errstate(invalid="ignore")
def halves_are_widened() -> None:
    """All 2^16 of each kind, as they are: to float32, to float64, and there and back."""
    for kind in ("float16", "bfloat16"):
        halves = np.arange(2**16, dtype=np.uint16).view(DTYPES[kind])
        for to in ("float32", "float64"):
            assert not differing(converted(halves, to, to), halves.astype(DTYPES[to])).any(), f"{kind} to {to}"
        for computed_in in ("float32", "float64", kind):
            assert not differing(converted(halves, kind, computed_in), halves).any(), f"{kind} through {computed_in}"
