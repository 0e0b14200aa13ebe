"""The library steps as the rules do: every size, number of threads, dtype and treatment of subnormals."""

import importlib
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from one_pass import build
from one_pass.program import recorded
from optparity.registry import ROWS, Row

from ..sampling import ACCUMULATORS, DEFAULTS, FULL, sampled
from . import checks

X86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="MXCSR is a register of x86-64")
CASES = [(row, dtype) for row in (*DEFAULTS, *FULL, *ACCUMULATORS) for dtype in row.dtypes]


@pytest.mark.parametrize(
    ("row", "dtype"), sampled(CASES, lambda row, dtype: dtype == "float32" or row.optimizer == "adam" or row in ACCUMULATORS), ids=str
)
def test_leaves_of_all_sizes(row, dtype):
    checks.steps_are_the_rules(row, dtype)


@pytest.mark.parametrize("dtype", checks.DTYPES)
def test_each_size_alone(dtype):
    checks.each_size_alone(Row("adam", "default"), dtype)


@pytest.mark.parametrize("dtype", checks.DTYPES)
def test_a_first_moment_in_bfloat16(dtype):
    adam = Row("adam", "default")

    def make(groups):
        return adam.entry.torch(groups, mu_dtype=torch.bfloat16)

    shapes = [(), (17,), (1025,)]
    with checks.counted() as taken:
        ours = checks.stepped(make, shapes, dtype)
    assert len(taken) == 2
    checks.same_bits(ours, checks.stepped(make, shapes, dtype, foreach=False))


def test_rounding():
    checks.rounding_is_the_others()


@pytest.mark.exhaustive
def test_every_61st_float32_is_rounded_right():
    checks.rounding_is_the_others(np.arange(0, 2**32, 61, dtype=np.uint32).view(np.float32))


def test_halves_are_widened():
    checks.halves_are_widened()


@X86
@pytest.mark.parametrize("word", checks.WORDS.values(), ids=checks.WORDS)
def test_the_word_is_put_back(word):
    checks.the_word_is_put_back(word)


def test_subnormals_in_torch():
    checks.subnormals_are_flushed_as_torch_says()


@pytest.mark.parametrize("n", [5, 3 * checks.PART + 5])
def test_subnormals_in_jax(n):
    """Stepped parameters keep them. An update treats them as the XLA program around it."""
    shell = Row("sgd", "default").entry.jax(1.0).update.__self__
    tiny, zero = jnp.full(n, 1e-39, jnp.float32), jnp.zeros(n, jnp.float32)

    @jax.jit
    def program(x, zero, one):
        p, _ = shell.update_and_apply(x, shell.init(zero), zero)
        u, _ = shell.update(x, shell.init(zero), zero)
        return p, u, x * one

    p, u, around = (np.asarray(x) for x in program(tiny, zero, jnp.float32(1)))
    assert (p == -np.asarray(tiny)).all()
    assert (u == -around).all()


WITHOUT_THREADS = """
import ctypes, resource, sys
import numpy as np
step = ctypes.CDLL(sys.argv[1]).one_pass_step
step.argtypes = [ctypes.c_char_p, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3]
n = 1 << 16
g, p, h, kinds = np.ones(n, np.float32), np.zeros(n, np.float32), np.zeros(32), np.zeros(3, np.int64)
h[0] = -1
table = np.array([n, *(x.ctypes.data for x in (g, p, p))])
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 20), -1))  # a thread needs 8 MiB for its stack
assert step(sys.argv[2].encode(), h.ctypes.data, kinds.ctypes.data, table.ctypes.data, 1, 1, 4) == 0
assert (p == 1).all()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory is read and set as Linux has it")
def test_where_no_thread_is_to_be_had_the_caller_does_everything():
    program = recorded(importlib.import_module("jaxopt_impl.sgd"), lambda name: False)
    subprocess.run([sys.executable, "-c", WITHOUT_THREADS, str(build.LIBRARY), program.name], check=True)


@pytest.mark.exhaustive
def test_more_elements_than_32_bits_count():
    """8.6 GB."""
    n = 2**31 + 17
    p = torch.nn.Parameter(torch.ones(n, dtype=torch.bfloat16))
    p.grad = torch.ones(n, dtype=torch.bfloat16)
    twice = [0, 2**30, 2**31 - 1, 2**31, 2**31 + 1, n - 1]
    p.grad[twice] = 2
    with checks.threads(2), checks.counted() as taken:
        Row("sgd", "default").entry.torch([p], lr=0.5).step()
    assert len(taken) == 1
    with torch.no_grad():
        assert (p[twice] == 0).all()
        p[twice] = 0.5
        assert all((part == 0.5).all() for part in p.split(2**26))


def test_every_row_is_sampled():
    assert {row.optimizer for row, _ in CASES} == {row.optimizer for row in ROWS}
