"""Two optimizers of one formula are never explained."""

import pytest
from hypothesis import HealthCheck, given, settings

from optparity.explain import examine

from ..sampling import EXHAUSTIVE
from .pairs import pairs

STRICT = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


def _agree(pair):
    found = examine(pair.first, pair.second, pair.params, pair.gradients)
    assert found.explanation is None, f"{pair.name}: {pair.first}, {pair.second}: {found}"
    assert found.agree, f"{pair.name}: {pair.first}, {pair.second}: {found}"


@settings(max_examples=20, **STRICT)
@given(pairs(steps=5))
def test_no_explanation_where_only_rounding_differs(pair):
    _agree(pair)


@EXHAUSTIVE
@pytest.mark.usefixtures("as_users_have_it")
@settings(max_examples=500, **STRICT)
@given(pairs(steps=12))
def test_no_explanation_in_five_hundred_pairs(pair):
    _agree(pair)
