"""Every configuration that is tested steps through the library, in both packages: none falls back on the rule in silence."""

import jax
import jax.numpy as jnp
import pytest
import torch

from jaxopt_impl import one_pass
from optparity.registry import ROWS

from .checks import counted


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_in_jax(row):
    assert one_pass.applies(row.tx.update.__self__)
    p = jnp.ones(3, row.dtypes[0])
    lowered = jax.jit(row.tx.update).lower(p, row.tx.init(p), p).as_text()
    assert lowered.count("optparity_one_pass") == 1


def test_in_jax_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("OPTPARITY_ONE_PASS", "0")
    assert not any(one_pass.applies(row.tx.update.__self__) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_in_torch(row):
    for dtype in row.dtypes:
        leaves = [torch.nn.Parameter(torch.ones(n, dtype=getattr(torch, dtype))) for n in (3, 4)]
        for p in leaves:
            p.grad = torch.ones_like(p)
        with counted() as taken:
            row.torch(leaves).step()
        assert len(taken) == 1


def test_in_torch_it_can_be_switched_off(monkeypatch):
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    for foreach, switch, steps in ((None, "1", 1), (False, "1", 0), (None, "0", 0)):
        monkeypatch.setenv("OPTPARITY_ONE_PASS", switch)
        optimizer = ROWS[0].torch([{"params": [p], "foreach": foreach}])
        with counted() as taken:
            optimizer.step()
        assert len(taken) == steps
