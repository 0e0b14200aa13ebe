"""docs/cost_measured.md: no estimate is below what was measured unless the page says why, and "fits: yes" is never said of more."""

import pytest

from optparity.accounting.memory import MARGIN
from tools import cost_measured as published


@pytest.mark.parametrize("run", published.RUNS, ids=lambda run: f"{run.name}, {run.measured}")
def test_a_published_run(run):
    bare, full = run.gib
    assert full >= run.measured or run.below
    assert bare <= full
    assert not run.memory.fits(0.999 * run.measured * published.GIB / 1e9, MARGIN), "fits: yes, of a run that took more"


@pytest.mark.parametrize("run", published.RAN, ids=lambda run: f"{run.name}, {run.recompute}")
def test_what_ran_out_of_memory(run):
    fits = run.memory.fits(80, MARGIN)
    assert run.ran or not fits
    assert fits or not run.ran or run.why


@pytest.mark.parametrize("saving", published.savings(), ids=lambda saving: saving.name)
def test_what_fewer_bits_save(saving):
    assert saving.gib == pytest.approx(saving.published, rel=0.015)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zeros_table(stage):
    """To its rounding."""
    for _, model, devices, table in published.ZERO_TABLE:
        assert published.zero_states(model, devices, stage) == pytest.approx(table[stage - 1], rel=0.005, abs=0.005)


def test_utilization():
    for one in published.utilizations():
        assert one.ours == pytest.approx(one.published, rel=0.005) or one.why
