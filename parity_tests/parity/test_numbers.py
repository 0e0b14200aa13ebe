"""Numbers that are no leaves: bias corrections, and what NumPy and Python hold."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_impl import numerics as nx
from optparity.parity.bits import differing
from torch_ref import numerics as torch_nx

from ..oracle import binary_power
from ..sampling import FULL


@pytest.mark.parametrize("beta", [0.9, 0.95, 0.98, 0.99, 0.999])
def test_bias_corrections(beta):
    """Inside jit without x64: the float64 bits of torch_ref's and the oracle's binary powering; in float32 those of Python's floats."""
    t = np.arange(1, 100_001, dtype=np.int32)

    @jax.jit
    def corrections(t):
        with jax.enable_x64(True):
            one = lambda t: (1 / (1 - nx.power(beta, nx.scalar(t))), nx.sqrt(1 - nx.power(beta, nx.scalar(t))))  # noqa: E731
            like = nx.Rounded(jnp.zeros((), jnp.float32))
            return jax.vmap(lambda t: tuple((v.in_float64(), v.rounded(like).x) for v in one(t)))(t)

    (rate64, rate32), (root64, root32) = corrections(t)
    python = [beta**n for n in t.tolist()]
    np.testing.assert_array_equal(np.asarray(rate32), np.array([1 / (1 - x) for x in python], np.float32))
    np.testing.assert_array_equal(np.asarray(root32), np.sqrt(1 - np.array(python)).astype(np.float32))
    some = [*range(1, 200), *range(200, 100_001, 997)]
    assert [torch_nx.power(beta, n) for n in some] == [binary_power(beta, n) for n in some]
    np.testing.assert_array_equal(np.asarray(rate64)[np.array(some) - 1], [1 / (1 - binary_power(beta, n)) for n in some])
    np.testing.assert_array_equal(np.asarray(root64)[np.array(some) - 1], np.sqrt([1 - binary_power(beta, n) for n in some]))


@pytest.mark.parametrize("row", FULL, ids=str)
def test_numpy_leaves_in_eager_mode(row):
    """NumPy's float64 is what the process has for it: float32 here, with the bits of the compiled update."""
    rng = np.random.default_rng(0)
    p, g = ({"w": rng.standard_normal(9), "x": 0.5} for _ in range(2))
    eager, compiled = (row.tx.init(p) for _ in range(2))
    for _ in range(3):
        u, eager = row.tx.update(g, eager, p)
        v, compiled = jax.jit(row.tx.update)(g, compiled, p)
        for x, y in zip(jax.tree.leaves((u, eager)), jax.tree.leaves((v, compiled)), strict=True):
            assert x.dtype == y.dtype
            assert not differing(np.asarray(x), np.asarray(y)).any()


@pytest.mark.usefixtures("without_one_pass")
@pytest.mark.parametrize("row", FULL, ids=str)
def test_what_a_tpu_would_compute_holds_no_array_of_the_trace(row):
    """It may be compiled long after it was traced."""
    tx = optax.inject_hyperparams(row.entry.jax)(**row.arguments)
    p = jnp.ones(3)
    found = list(_scalars(jax.make_jaxpr(tx.update)(p, tx.init(p), p).jaxpr))
    assert found
    assert not any(scalar.arrays() for scalar in found)


def _scalars(jaxpr):
    """Each `Scalar` whose method is kept in a program."""
    for eqn in jaxpr.eqns:
        functions = dict(eqn.params["functions"]).values() if eqn.primitive.name == "instead" else ()
        yield from (f.__self__ for f in functions if isinstance(getattr(f, "__self__", None), nx.Scalar))
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            yield from _scalars(getattr(inner, "jaxpr", inner)) if hasattr(inner, "eqns") else ()
