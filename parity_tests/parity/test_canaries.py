"""A canary per rewrite: what XLA makes of the plain expression on this backend, and that the fenced one is as NumPy has it."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_impl
from jaxopt_impl import numerics as nx
from optparity.parity import canaries
from optparity.parity.bits import differing
from optparity.registry import OPTIMIZERS, ROWS

from ..sampling import FULL, sampled

VERSION = ".".join(jax.__version__.split(".")[:2])


@pytest.mark.parametrize("canary", canaries.CANARIES, ids=lambda c: c.name)
def test_the_fence_holds(canary, dtype):
    plain, fenced = canaries.plain_and_fenced(canary, dtype)
    print(f"jax {jax.__version__}: {canary.name}: plain {plain:.2%} differ, fenced {fenced:.2%}")
    assert fenced == 0
    if jax.default_backend() == "cpu" and VERSION in ("0.10", "0.12"):
        assert (plain > 0) == (VERSION in canary.rewritten_by), "XLA has changed its mind: canaries.py wants to be told"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("canary", [canary for canary in canaries.CANARIES if canary.halves], ids=lambda c: c.name)
def test_halves_round_after_each_operation(canary, dtype):
    _, fenced = canaries.plain_and_fenced(canary, dtype)
    assert fenced == 0


@pytest.mark.parametrize("canary", canaries.TORCH, ids=lambda c: c.name)
def test_torch_operations(canary, dtype):
    """What torch_ref uses rounds once; of what it avoids, the canary knows what it does where FMA and MKL are."""
    import torch

    differ = canaries.torch_differing(canary, dtype)
    print(f"{canary.name}: {differ:.2%} differ")
    if canary.used:
        assert differ == 0
    elif torch.backends.cpu.get_cpu_capability() != "DEFAULT" and torch.backends.mkl.is_available():
        assert (differ > 0) == canary.rounds_otherwise


def test_scalars_keep_float64_until_they_meet_a_leaf(dtype):
    """A product of two run-time hyper-parameters is rounded to float64, then once to the leaf, and is not contracted."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(4096).astype(dtype) for _ in range(2))
    lr, wd = np.float32(0.1), np.float32(0.3)

    def step(a, b, lr, wd):
        with jax.enable_x64(True):
            return nx.finish(nx.Rounded(a) + nx.scalar(lr) * nx.scalar(wd) * nx.Rounded(b))

    expected = a + np.asarray(float(lr) * float(wd), dtype) * b
    np.testing.assert_array_equal(np.asarray(jax.jit(step)(a, b, lr, wd)), expected)

    def added(a, lr, wd):
        with jax.enable_x64(True):
            return nx.finish(nx.Rounded(a) + nx.scalar(lr) * nx.scalar(wd))

    expected = a + np.asarray(float(lr) * float(wd), dtype)
    np.testing.assert_array_equal(np.asarray(jax.jit(added)(a, lr, wd)), expected)
    # This backend would not miss the fences on the two sides of the conversion; the text of the program holds them.
    ands = [line for line in jax.jit(added).lower(np.zeros(8, "f4"), lr, wd).as_text().splitlines() if "stablehlo.and" in line]
    assert sum("tensor<ui64>" in line for line in ands) == 1
    assert sum("tensor<ui32>" in line for line in ands) == 1


def test_the_zero_carries_a_sign(dtype):
    x = np.array([0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan], dtype)
    for f in (nx.fence, jax.jit(nx.fence)):
        np.testing.assert_array_equal(np.asarray(f(x)).view(f"u{x.itemsize}"), x.view(f"u{x.itemsize}"))


@pytest.mark.parametrize("k", [-1.3, 1.3])
@pytest.mark.parametrize(
    "expression",
    [
        lambda k, b, c: k + b * c,
        lambda k, b, c: b * c + k,
        lambda k, b, c: k - b * c,
        lambda k, b, c: b * c - k,
        lambda k, b, c: k * c + b * c,
    ],
    ids=["k + bc", "bc + k", "k - bc", "bc - k", "kc + bc"],
)
def test_an_array_of_constants_takes_no_fence_from_the_other_addend(expression, k, dtype):
    """The barrier hides it from XLA, but not from LLVM, which drops the addition of a -0 that it knows."""
    rng = np.random.default_rng(0)
    b, c = (rng.standard_normal(1003).astype(dtype) for _ in range(2))

    @jax.jit
    def fenced(b, c):
        return nx.finish(expression(*(nx.wrap(x, dtype) for x in nx.barrier(jnp.full_like(b, k), b, c))))

    with jax.enable_x64(dtype == "float64"):
        np.testing.assert_array_equal(np.asarray(fenced(b, c)), expression(np.full_like(b, k), b, c))


@pytest.mark.parametrize("minus", [False, True])
def test_one_zero_does_for_both_addends(minus, dtype):
    """Signs of zero, in each pair; and both are fenced."""
    special = np.array([0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan], dtype)
    a, b = (x.ravel() for x in np.meshgrid(special, special))
    with jax.enable_x64(dtype == "float64"), np.errstate(invalid="ignore"):
        got = jax.jit(lambda a, b: nx.unwrap(nx.Rounded(a) - nx.Rounded(b) if minus else nx.Rounded(a) + nx.Rounded(b)))(a, b)
        differ = differing(np.asarray(got), a - b if minus else a + b)
    assert not differ.any()


def test_the_zero_of_a_constant_is_no_fence():
    """A leaf, and its sum with a constant, are each fenced by a zero of their own. Not every XLA would merge the two constants."""
    step = lambda x: nx.unwrap(0.3 + (nx.wrap(x, "float32") + 0.1))  # noqa: E731
    text = jax.jit(step).lower(jax.ShapeDtypeStruct((8,), jnp.float32)).as_text()
    assert sum("stablehlo.and" in line and "8xui32" in line for line in text.splitlines()) == 2


@pytest.mark.usefixtures("without_one_pass")
@pytest.mark.parametrize(("row", "dtype"), [(row, dtype) for row in ROWS for dtype in ("float32", "bfloat16", "float16")], ids=str)
def test_the_lowered_step_holds_its_fences(row, dtype):
    """Fences that this backend would not miss are held by the text of the program; and there are no more than are needed."""
    leaf = jax.ShapeDtypeStruct((8,), dtype)
    state = jax.eval_shape(row.tx.init, leaf)
    text = jax.jit(row.tx.update).lower(leaf, state, leaf).as_text()
    signed_zeros = sum("stablehlo.and" in line and "8xui32" in line for line in text.splitlines())
    fences = row.entry.fences[row.label]
    in_float32 = dtype == "float32" or "accumulator_dtype" in row.arguments
    assert signed_zeros == (fences.float32 if in_float32 else fences.float16 if dtype == "float16" else 0)
    assert text.count("optimization_barrier") >= 1


@pytest.mark.parametrize("row", sampled(zip(ROWS), lambda row: row in FULL), ids=str)
def test_a_finished_update_merges_with_nothing(row, dtype):
    """What the caller computes of it in the same jit, as a clipping does, has the bits that it has outside: no sum, product or quotient."""
    rng = np.random.default_rng(0)
    g, p, d = (rng.uniform(1, 3, 10_007).astype(dtype) for _ in range(3))
    with jax.enable_x64(dtype == "float64"):
        state = row.tx.init(p)
        u = jax.jit(row.tx.update)(g, state, p)[0]
        for f in (lambda u, d: u + d, lambda u, d: 0.3 * u, lambda u, d: u / d, lambda u, d: d / u):
            inside = jax.jit(lambda g, state, p, d, f=f: f(row.tx.update(g, state, p)[0], d))(g, state, p, d)
            assert not differing(np.asarray(inside), np.asarray(jax.jit(f)(u, d))).any()


@pytest.mark.usefixtures("without_one_pass")
@pytest.mark.parametrize("row", [row for row in ROWS if "float32" in row.dtypes], ids=str)
def test_a_donated_step_needs_no_temporaries(row):
    """Bytes of temporaries for each element of a donated training step, beyond the scalars.

    XLA on CPU stores a value that several kernels need if its operands are larger than itself and one of the kernels makes another's input:
    in some rows the decayed gradient g + λθ. It does so for the unfenced rule and for optax as well.
    """

    def train_step(params, state, gradient):
        updates, state = row.tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    leaf = jax.ShapeDtypeStruct((2**20,), jnp.float32)
    compiled = jax.jit(train_step, donate_argnums=(0, 1)).lower(leaf, jax.eval_shape(row.tx.init, leaf), leaf).compile()
    assert compiled.memory_analysis().temp_size_in_bytes // leaf.size == row.entry.temporaries.get(row.label, 0)


def test_numerics_is_the_only_file_that_knows():
    """No other file of the package reaches for bits, barriers or lax."""
    for name in {entry.kernel for entry in OPTIMIZERS.values()} | {"transform", "checks", "packing"}:
        names = vars(importlib.import_module(f"{jaxopt_impl.__name__}.{name}"))
        assert "lax" not in names
