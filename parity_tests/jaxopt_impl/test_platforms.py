"""`instead`: one traced program, and on a named platform another computation, in every transformation of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxopt_impl.platforms import instead

A, B = jnp.arange(1.0, 9.0), jnp.float32(3)


def here(a, b):
    """A product, and on this platform a difference."""
    return instead(a * b, a, b, cpu=lambda a, b: a - b)


def elsewhere(a, b):
    """A product here, and a difference on a platform that is not this one."""
    return instead(a * b, a, b, tpu=lambda a, b: a - b, gpu=lambda a, b: a + b, other=lambda a, b: a / b)


def scanned(f):
    return lambda a, b: lax.scan(lambda c, _: (f(c, b), None), a, None, length=1)[0]


def sharded(f):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=(PartitionSpec("data"), PartitionSpec()), out_specs=PartitionSpec("data")))


WAYS = {
    "eager": lambda f: f,
    "jit": jax.jit,
    "scan": scanned,
    "cond": lambda f: lambda a, b: lax.cond(jnp.asarray(True), f, lambda a, b: a, a, b),
    "vmap": lambda f: jax.vmap(f, (0, None)),
    "jit of vmap": lambda f: jax.jit(jax.vmap(f, (0, None))),
    "checkpoint": jax.checkpoint,
    "shard_map": sharded,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_platform_decides(way):
    np.testing.assert_array_equal(WAYS[way](here)(A, B), A - B)
    np.testing.assert_array_equal(WAYS[way](elsewhere)(A, B), A * B)


def test_the_batch_may_be_of_any_operand():
    for axes, shape in (((0, None), (8,)), ((None, 0), (8,)), ((0, 0), (8,))):
        a, b = (A if axis == 0 else A[2] for axis in axes)
        got = jax.vmap(here, axes)(a, b)
        assert got.shape == shape
        np.testing.assert_array_equal(got, a - b)
    only_the_value = jax.vmap(lambda a: instead(a, B, cpu=lambda b: b + 1))(A)
    np.testing.assert_array_equal(only_the_value, np.full(8, 4.0))
    only_an_argument = jax.vmap(lambda b: instead(A[0], b, cpu=lambda b: b + 1))(A)
    np.testing.assert_array_equal(only_an_argument, A + 1)
    nowhere = jax.vmap(lambda b: instead(A[0], b, tpu=lambda b: b + 1))(A)
    np.testing.assert_array_equal(nowhere, np.full(8, A[0]))


def test_derivatives_are_those_of_the_value():
    value = lambda a, b: a * b  # noqa: E731
    for f in (here, elsewhere):
        for got, expected in zip(jax.jvp(f, (A, B), (A, B))[1:], jax.jvp(value, (A, B), (A, B))[1:], strict=True):
            np.testing.assert_array_equal(got, expected)
        grads = [jax.grad(lambda a, b, g=g: g(a, b).sum(), (0, 1))(A, B) for g in (f, value)]
        for got, expected in zip(*grads, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_each_compiler_gets_its_own_operations():
    """One trace; the text for each platform holds the operations that are meant for it."""
    traced = jax.jit(elsewhere).trace(A, B)
    for platform, operation in {"cpu": "multiply", "tpu": "subtract", "cuda": "add", "rocm": "add"}.items():
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert f"stablehlo.{operation} " in text, platform
    assert all(f"stablehlo.{other}" not in jax.jit(elsewhere).lower(A, B).as_text() for other in ("subtract", "add", "divide"))
