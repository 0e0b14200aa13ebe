"""The claim itself: not one bit differs, in any row, stream, context and size."""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice, product
from typing import NamedTuple

import jax
import numpy as np
import pytest

from optparity.parity.compare import assert_identical, compare
from optparity.parity.contexts import CONTEXTS
from optparity.parity.digits import Digits
from optparity.parity.streams import STREAMS, gradients, parameters
from optparity.registry import DTYPES, OPTIMIZERS, ROWS, Row

from ..sampling import DEFAULTS, EXHAUSTIVE, FULL, sampled

SIZES = {
    "small": {"w": (1003,)},
    "sizes": {"matrix": (17, 59), "one": (1,), "seven": (7,)},
    "large": {"one": (1,), "seven": (7,), "vector": (1003,), "large": (300_007,)},
    "sharded": {"n8": (8,), "n1000": (1000,), "n80000": (80_000,), "n300008": (300_008,), "n1": (1,), "n7": (7,), "n1003": (1003,)},
}


class Case(NamedTuple):
    row: Row
    dtype: str
    context: str
    sizes: str
    streams: tuple[str, ...]
    steps: int

    def __str__(self) -> str:
        stream = self.streams[0] if len(self.streams) == 1 else "every stream"
        return f"{self.row}-{self.dtype}-{self.context}-{self.sizes}-{stream}-{self.steps}"


def sizes(context: str, otherwise: str) -> str:
    return "sharded" if context == "sharded" else otherwise


def under_jit() -> Iterator[Case]:
    """Full rows and defaults in every dtype, other rows in one, another each time; each on every stream."""
    for i, row in enumerate(ROWS):
        for dtype in row.dtypes if row in FULL or row in DEFAULTS else [row.dtypes[i % len(row.dtypes)]]:
            yield Case(row, dtype, "jit", "small", tuple(STREAMS), 60)


def in_contexts() -> Iterator[Case]:
    """Full rows meet every context and the large leaf, other rows one: with another dtype and stream each time."""
    met = Counter()
    for i, row in enumerate(ROWS):
        for j, (context, way) in enumerate(CONTEXTS.items()):
            if row in FULL or i % len(CONTEXTS) == j:
                k = j + met[context]
                met[context] += 1
                streams = [stream for stream in STREAMS if way.holds_on(stream)]
                yield Case(row, row.dtypes[k % len(row.dtypes)], context, sizes(context, "sizes"), (streams[k % len(streams)],), 10)
        if row in FULL:
            yield Case(row, row.dtypes[i % len(row.dtypes)], "train_step", "large", ("normal",), 10)


def everything() -> Iterator[Case]:
    for row in ROWS:
        for dtype in row.dtypes:
            yield Case(row, dtype, "jit", "small", tuple(STREAMS), 200)
            for context in CONTEXTS:
                yield Case(row, dtype, context, sizes(context, "large"), tuple(STREAMS), 10)


@lru_cache(maxsize=8)
def drawn(streams: tuple[str, ...], dtype: str, sizes: str, steps: int):
    """Parameters, and gradients for so many steps; several streams are the rows of one array, where no element heeds another."""
    params = parameters(SIZES[sizes], dtype)
    several = [islice(gradients(stream, params), steps) for stream in streams]
    if len(streams) == 1:
        return params, list(several[0])
    stack = lambda *rows: jax.tree.map(lambda *leaves: np.stack(leaves), *rows)  # noqa: E731
    return stack(*[params] * len(streams)), [stack(*rows) for rows in zip(*several, strict=True)]


@pytest.mark.parametrize("case", [*under_jit(), *in_contexts(), *(pytest.param(case, marks=EXHAUSTIVE) for case in everything())], ids=str)
def test_no_bit_differs(case):
    """Parameters and state, at every step."""
    with jax.enable_x64(case.dtype == "float64"):
        state = case.row.tx.init({"w": np.zeros(1, case.dtype)})._asdict()
        uncounted = set() if case.row.entry.has_step else {"step"}
        state_fields = {field for field, value in state.items() if value is not None} - uncounted
        held = [stream for stream in case.streams if CONTEXTS[case.context].holds_on(stream)]  # test_the_exception_... has the others
        for streams in [tuple(held)] if case.sizes == "small" else [(stream,) for stream in held]:
            params, fed = drawn(streams, case.dtype, case.sizes, case.steps)
            report = assert_identical(case.row.tx, case.row.torch, params, fed, steps=case.steps, context=case.context)
            assert set(report.compared) == {"params"} | state_fields
            assert report.steps == min(case.steps, CONTEXTS[case.context].most_steps or case.steps)


def test_one_case_of_each_kind_is_always_run():
    """Every optimizer, dtype, stream and size meets every context."""
    cases = [*under_jit(), *in_contexts()]
    assert {(case.row, stream) for case in under_jit() for stream in case.streams} == set(product(ROWS, STREAMS))
    assert {(case.row.optimizer, case.dtype) for case in under_jit()} == set(product(OPTIMIZERS, DTYPES))
    for context, way in CONTEXTS.items():
        met = [case for case in cases if case.context == context]
        assert {case.row.optimizer for case in met} == set(OPTIMIZERS), context
        assert {case.dtype for case in met} == set(DTYPES), context
        assert {stream for case in met for stream in case.streams} == set(filter(way.holds_on, STREAMS)), context
    assert {case.sizes for case in cases} == set(SIZES)


@pytest.mark.usefixtures("without_one_pass")
def test_the_exception_is_what_we_say():
    """Constants x subnormal: compiled away without flushing, so a subnormal stays where the run would have given zero; documented."""
    assert {(name, stream) for name, way in CONTEXTS.items() for stream in way.except_on} == {("constants", "subnormal")}
    row = Row("momentum", "default")
    params = parameters({"w": (7,)}, "float32")
    report = compare(row.tx, row.torch, params, gradients("subnormal", params), context="constants", steps=1)
    assert not report.identical
    first = report.first_difference
    assert first.leaf.startswith("momentum_buffer")
    assert int(first.expected, 16) & 0x7FFFFFFF == 0
    assert 0 < int(first.got, 16) & 0x7FFFFFFF < 0x00800000


@pytest.mark.parametrize(
    ("row", "dtype"),
    sampled(product(DEFAULTS, ["float32", "float64"]), lambda row, dtype: dtype == "float32" or row == DEFAULTS[-1]),
    ids=str,
)
def test_thousand_steps_on_the_digits(row, dtype):
    """A closed loop on real data: the gradients come from the parameters that both sides hold, and the classifier learns."""
    digits, last = Digits(dtype), {}

    def gradient(params, step):
        last["params"] = params
        return digits.gradient(params, step)

    report = assert_identical(row.tx, row.torch, digits.params, gradient, steps=1000, context="train_step")
    assert report.steps == 1000
    accuracy = digits.accuracy(last["params"])
    print(f"{row}, {dtype}: held-out accuracy {100 * accuracy:.1f} %")
    assert accuracy >= 0.95
