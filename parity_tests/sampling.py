"""What `make test` takes of a product of cases; the others are for `make exhaustive`."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from optparity.registry import ROWS

EXHAUSTIVE = pytest.mark.exhaustive
DEFAULTS = [row for row in ROWS if row.label == "default"]
FULL = [row for row in ROWS if "all" in row.label]  # every flag of a rule that another does not exclude
ACCUMULATORS = [row for row in ROWS if "accumulator_dtype" in row.arguments]


def sampled(cases: Iterable[tuple], keep: Callable[..., Any]) -> list:
    """The cases as parameters of a test; those that `keep` does not want are marked `exhaustive`."""
    return [pytest.param(*case, marks=() if keep(*case) else EXHAUSTIVE) for case in cases]
