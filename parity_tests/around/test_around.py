"""The claim around the step: not one bit differs, in any piece, form, dtype, stream and context."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import jax
import pytest
from jax.tree_util import tree_leaves_with_path

from optparity.around import AROUND_ROWS, PIECES, AroundRow
from optparity.around.piece import SIZES
from optparity.parity.compare import assert_identical
from optparity.parity.contexts import CONTEXTS
from optparity.parity.streams import STREAMS, gradients, parameters

from ..sampling import EXHAUSTIVE


class Case(NamedTuple):
    row: AroundRow
    dtype: str
    context: str
    stream: str
    steps: int

    def __str__(self) -> str:
        return f"{self.row}-{self.dtype}-{self.context}-{self.stream}-{self.steps}"


def square() -> Iterator[Case]:
    """Each row in each dtype over 200 steps: once in each context, on another stream each time.

    Over the rows, each context meets each stream. All four together would be 27,000 cases, a day of compiling.
    """
    kinds = [(row, dtype) for row in AROUND_ROWS for dtype in row.dtypes]
    for i, (row, dtype) in enumerate(kinds):
        contexts = [context for context in CONTEXTS if context not in row.entry.except_in]
        for j, context in enumerate(contexts):
            streams = [stream for stream in STREAMS if stream not in CONTEXTS[context].except_on]
            yield Case(row, dtype, context, streams[(i + j) % len(streams)], 200)


def few() -> Iterator[Case]:
    """Each row in a context and on a stream, default rows in two of them, with another dtype each time."""
    for i, row in enumerate(row for row in AROUND_ROWS if row.entry.sampled is None or row.label in row.entry.sampled):
        contexts = [context for context in CONTEXTS if context not in row.entry.except_in]
        for j in range(2 if row.label == "default" else 1):
            context = contexts[(i + j * len(contexts) // 2) % len(contexts)]
            streams = [stream for stream in STREAMS if stream not in CONTEXTS[context].except_on]
            yield Case(row, row.dtypes[(i + j) % len(row.dtypes)], context, streams[(i + 4 * j) % len(streams)], 10)


@pytest.mark.parametrize("case", [*few(), *(pytest.param(case, marks=EXHAUSTIVE) for case in square())], ids=str)
def test_no_bit_differs(case):
    """Parameters and state, at every step."""
    with jax.enable_x64(case.dtype == "float64"):
        params = parameters(SIZES, case.dtype)
        fed = list(islice(gradients(case.stream, params), case.steps))
        report = assert_identical(case.row.tx, case.row.torch, params, fed, steps=case.steps, context=case.context)
        assert report.steps == min(case.steps, CONTEXTS[case.context].most_steps or case.steps)
        names = {getattr(key, "name", None) for path, _ in tree_leaves_with_path(case.row.tx.init(params)) for key in path}
        compared = set(report.compared) - {"params", "step"}
        # Where the only steps are left out, or are of one batch that is not whole, torch has not begun its state.
        never_stepped = case.stream in ("inf", "nan") or report.steps < case.row.arguments.get("every", 1)
        assert compared <= names & set(case.row.entry.state)
        assert never_stepped or compared == names & set(case.row.entry.state)


REFUSED = [(piece, refused) for piece in PIECES.values() for refused in piece.refused]


@pytest.mark.parametrize(("piece", "refused"), REFUSED, ids=lambda x: getattr(x, "name", "") or x.message)
def test_both_sides_refuse_with_the_same_text(piece, refused):
    import torch

    with pytest.raises(refused.error) as ours:
        piece.jax(**refused.arguments)
    with pytest.raises(refused.error) as theirs:
        piece.torch(**refused.arguments)([torch.nn.Parameter(torch.ones(3))])
    assert str(ours.value) == str(theirs.value) == refused.message
