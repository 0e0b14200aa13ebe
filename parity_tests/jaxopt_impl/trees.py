"""How two trees of arrays are compared."""

import jax
import numpy as np

from optparity.parity.bits import differing


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert not differing(np.asarray(x), np.asarray(y)).any()
