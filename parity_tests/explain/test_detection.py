"""The page that says which check sees which mistake is what is measured."""

from pathlib import Path

import pytest

from optparity import detection
from optparity.explain.planted import planted

from ..sampling import sampled

PAGE = (Path(__file__).parents[2] / "docs" / "detection.md").read_text()
ROWS = {row.name: row for row in detection.read(PAGE)}
SHOWN = ("cosine: to T - 1", "average: starts at zero, debiased")  # no check sees all of these


def test_every_mistake_has_its_row_and_is_seen_by_bits():
    assert list(ROWS) == [*detection.SAME, *(mistake.name for mistake in planted())]
    assert [mistake.name for mistake in planted() if not ROWS[mistake.name].seen["bits"]] == []


def test_ours_give_no_false_alarm():
    ours, *stock = (ROWS[name] for name in detection.SAME)
    assert not any(ours.seen.values())
    assert all(row.seen["bits"] for row in stock)


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("mistake", sampled([(each,) for each in planted()], lambda each: each.name in SHOWN), ids=lambda each: each.name)
def test_a_mistake_is_seen_by_the_checks_of_its_row(mistake):
    assert detection.row_of(mistake) == ROWS[mistake.name]


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("name", sampled([(name,) for name in detection.SAME], lambda name: False))
def test_a_pair_without_a_mistake_is_seen_by_the_checks_of_its_row(name):
    assert detection.row_of_pair(name) == ROWS[name]
