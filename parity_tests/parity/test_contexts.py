"""The claim itself: not one bit differs, in any row, stream, context and size."""

from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import jax
import numpy as np
import pytest

from optparity.parity.compare import assert_identical, compare
from optparity.parity.contexts import CONTEXTS
from optparity.parity.streams import STREAMS, gradients, parameters
from optparity.registry import OPTIMIZERS, ROWS, Row

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
        return f"{self.row}-{self.dtype}-{self.context}-{self.sizes}"


def cases(exhaustive: bool) -> list[Case]:
    """Every row on every stream under jit; each context, and the large leaf, once per row. The whole product, if asked for."""
    rows = [(row, dtype) for row in ROWS for dtype in row.dtypes]
    everything = tuple(STREAMS)
    if exhaustive:
        return [
            Case(row, dtype, context, "sharded" if context == "sharded" else "large", everything, 10)
            for row, dtype in rows
            for context in CONTEXTS
        ]
    under_jit = [Case(row, dtype, "jit", "small", everything, 200) for row, dtype in rows]
    # Each row meets each context once, with another dtype and stream each time.
    once = [(row, context, i + j) for i, row in enumerate(ROWS) for j, context in enumerate(CONTEXTS)]
    others = [
        Case(
            row,
            row.dtypes[k % len(row.dtypes)],
            context,
            "sharded" if context == "sharded" else "sizes",
            (_stream(context, k),),
            10,
        )
        for row, context, k in once
    ]
    large = [Case(row, row.dtypes[i % len(row.dtypes)], "train_step", "large", ("normal",), 10) for i, row in enumerate(ROWS)]
    return under_jit + others + large


def _stream(context: str, k: int) -> str:
    """Another one for each k, of those on which parity holds in this context."""
    streams = [stream for stream in STREAMS if stream not in CONTEXTS[context].except_on]
    return streams[k % len(streams)]


@lru_cache(maxsize=8)
def drawn(streams: tuple[str, ...], dtype: str, sizes: str, steps: int):
    """Parameters, and gradients for so many steps; several streams are the rows of one array, where no element heeds another."""
    params = parameters(SIZES[sizes], dtype)
    several = [islice(gradients(stream, params), steps) for stream in streams]
    if len(streams) == 1:
        return params, list(several[0])
    stack = lambda *rows: jax.tree.map(lambda *leaves: np.stack(leaves), *rows)  # noqa: E731
    return stack(*[params] * len(streams)), [stack(*rows) for rows in zip(*several, strict=True)]


def test_no_bit_differs(case):
    """Parameters and state, at every step."""
    with jax.enable_x64(case.dtype == "float64"):
        state = case.row.tx.init({"w": np.zeros(1, case.dtype)})._asdict()
        uncounted = set() if OPTIMIZERS[case.row.optimizer].torch.has_step else {"step"}
        state_fields = {field for field, value in state.items() if value is not None} - uncounted
        held = [
            stream for stream in case.streams if stream not in CONTEXTS[case.context].except_on
        ]  # test_the_exception_... has the others
        for streams in [tuple(held)] if case.sizes == "small" else [(stream,) for stream in held]:
            params, fed = drawn(streams, case.dtype, case.sizes, case.steps)
            report = assert_identical(case.row.tx, case.row.torch, params, fed, steps=case.steps, context=case.context)
            assert set(report.compared) == {"params"} | state_fields
            assert report.steps == min(case.steps, CONTEXTS[case.context].most_steps or case.steps)


def test_the_exception_is_what_we_say():
    """Constants x subnormal: compiled away without flushing, so a subnormal stays where the run would have given zero; documented."""
    assert {(name, stream) for name, way in CONTEXTS.items() for stream in way.except_on} == {("constants", "subnormal")}
    row = next(row for row in ROWS if str(row) == "momentum: default")
    params = parameters({"w": (7,)}, "float32")
    report = compare(row.tx, row.torch, params, gradients("subnormal", params), context="constants", steps=1)
    assert not report.identical
    first = report.first_difference
    assert first.leaf.startswith("momentum_buffer")
    assert int(first.expected, 16) & 0x7FFFFFFF == 0
    assert 0 < int(first.got, 16) & 0x7FFFFFFF < 0x00800000


@pytest.mark.parametrize("row", [row for row in ROWS if row.label == "default"], ids=str)
def test_thousand_steps_on_the_digits(row, dtype):
    """A closed loop on real data: the gradients come from the parameters that both sides hold, and the classifier learns."""
    from optparity.parity.digits import Digits

    digits, last = Digits(dtype), {}

    def gradient(params, step):
        last["params"] = params
        return digits.gradient(params, step)

    report = assert_identical(row.tx, row.torch, digits.params, gradient, steps=1000, context="train_step")
    assert report.steps == 1000
    accuracy = digits.accuracy(last["params"])
    print(f"{row}, {dtype}: held-out accuracy {100 * accuracy:.1f} %")
    assert accuracy >= 0.95
