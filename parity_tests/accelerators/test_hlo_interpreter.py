"""The NumPy that runs HLO, on small programs; and on what jax lowers for a TPU, for which nothing but jax is needed."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from optparity.accelerators import programs
from optparity.accelerators.hlo_interpreter import Machine, UnknownOperationError, program
from optparity.accelerators.walking import walker
from optparity.parity import golden
from optparity.parity.bits import as_bits, differing
from optparity.registry import HALVES

from ..sampling import FULL, sampled

EXACT = Machine(off=0, flush=False)

TPU = """HloModule m, entry_computation_layout={(f32[4]{0:T(128)}, u64[]{:T(128)})->(f32[4]{0:T(128)}, u64[]{:T(128)})}

%body (t: (u32[], u32[])) -> (u32[], u32[]) {
  %t = (u32[]{:T(128)}, u32[]{:T(128)S(6)}) parameter(0)
  %one = u32[]{:T(128)} constant(1)
  %low = u32[]{:T(128)} get-tuple-element(%t), index=0, metadata={op_name="jit(f)/while/body/index=1"}
  %high = u32[]{:T(128)} get-tuple-element(%t), index=1
  %halved = u32[]{:T(128)} shift-right-logical(%high, %one)
  %more = u32[]{:T(128)} add(%low, %one)
  ROOT %next = (u32[]{:T(128)}, u32[]{:T(128)}) tuple(%more, %halved)
}

%condition (t.1: (u32[], u32[])) -> pred[] {
  %t.1 = (u32[]{:T(128)}, u32[]{:T(128)}) parameter(0)
  %zero = u32[]{:T(128)} constant(0)
  %high.1 = u32[]{:T(128)} get-tuple-element(%t.1), index=1
  ROOT %go = pred[]{:T(512)} compare(%high.1, %zero), direction=GT
}

%fused (p: f32[4], q: f32[]) -> f32[4] {
  %p = f32[4]{0:T(128)} parameter(0)
  %q = f32[]{:T(128)} parameter(1)
  %spread = f32[4]{0:T(128)} broadcast(%q), dimensions={}
  ROOT %product = f32[4]{0:T(128)} multiply(%p, %spread)
}

ENTRY %main (x: f32[4], n: u64[]) -> (f32[4], u64[]) {
  %x = f32[4]{0:T(128)} parameter(0)
  %n = u64[]{:T(128)} parameter(1)
  %tenth = f32[]{:T(128)} constant(0.1)
  %low.1 = u32[]{:T(128)} custom-call(%n), custom_call_target="X64SplitLow"
  %high.2 = u32[]{:T(128)} custom-call(%n), custom_call_target="X64SplitHigh"
  %pair = (u32[]{:T(128)}, u32[]{:T(128)}) tuple(%low.1, %high.2)
  %while = (u32[]{:T(128)}, u32[]{:T(128)}) while(%pair), condition=%condition, body=%body
  %low.3 = u32[]{:T(128)} get-tuple-element(%while), index=0
  %high.4 = u32[]{:T(128)} get-tuple-element(%while), index=1
  %copied = (f32[4]{0:T(128)S(1)}, f32[4]{0:T(128)}, u32[]{:S(2)}) copy-start(%x)
  %there = f32[4]{0:T(128)S(1)} copy-done(%copied)
  %fusion = f32[4]{0:T(128)} fusion(%there, %tenth), kind=kLoop, calls=%fused, backend_config={"a":["b=(1)"]}
  %joined = u64[]{:T(128)} custom-call(%low.3, %high.4), custom_call_target="X64Combine"
  ROOT %both = (f32[4]{0:T(128)}, u64[]{:T(128)}) tuple(%fusion, %joined)
}
"""


def test_the_text_of_a_tpus_program_is_run():
    x = np.array([1, 3, -0.0, np.inf], np.float32)
    product, joined = program(TPU, EXACT)([x, np.uint64((5 << 32) + 7)])
    assert not differing(product, x * np.float32(0.1)).any()
    assert joined == 7 + 3  # three turns until 5 is 0
    assert joined.dtype == np.uint64


def test_what_is_not_known_is_refused():
    with pytest.raises(UnknownOperationError, match="'fft'"):
        program(TPU.replace("multiply(", "fft("), EXACT)
    with pytest.raises(UnknownOperationError, match="SomethingElse"):
        program(TPU.replace("X64Combine", "SomethingElse"), EXACT)
    with pytest.raises(ValueError, match="not the text of an HLO program"):
        program("HloModule m", EXACT)
    with pytest.raises(ValueError, match="the program takes"):
        program(TPU, EXACT)([np.zeros(4, np.float32), np.uint32(0)])


def test_subnormals_are_flushed_or_kept():
    x = np.array([1e-38, -1e-38, 2e-38, 1e-37], np.float32)
    kept, flushed = (program(TPU, Machine(off=0, flush=flush))([x, np.uint64(0)])[0] for flush in (False, True))
    assert not differing(kept, x * np.float32(0.1)).any()
    assert not differing(flushed, np.array([0, -0.0, 0, 0], np.float32)).any()  # the last two as results


def test_a_quotient_is_as_wrong_as_it_is_told():
    text = _lowered(lambda a, b: a / b, np.zeros(1000, np.float32), np.zeros(1000, np.float32))
    a, b = np.random.default_rng(0).uniform(1, 2, (2, 1000)).astype(np.float32)
    (wrong,) = program(text, Machine(off=3))([a, b])
    off = np.abs(as_bits(wrong).astype(int) - as_bits(a / b).astype(int))
    assert off.max() == 3
    assert len(np.unique(off)) == 4


_X = np.array([0.0, -0.0, 1.5, -2.5, 3e9, -3e9, 5e9, np.inf, -np.inf, np.nan, 1e-40, 255.9], np.float32)
_N = np.array([0, 1, 5, 31, 32, 33, 2**31, 2**32 - 1], np.uint32)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (lambda x: x.astype(np.int32), [_X]),
        (lambda x: x.astype(np.uint8), [np.linspace(0, 255.9, 366, dtype=np.float32)]),
        (lambda x: x.astype(ml_dtypes.bfloat16), [_X]),
        (lambda x: x.astype(np.float16), [_X]),
        (lambda x: lax.reduce_precision(x, 8, 7), [np.random.default_rng(0).standard_normal(1000, np.float32)]),
        (lambda x: lax.sign(x), [_X[:10]]),
        (lambda x, y: lax.max(x, y), [_X[:10], _X[9::-1]]),
        (lambda x: lax.clamp(np.float32(-1), x, np.float32(2)), [_X[:9]]),
        (lambda n: n << n, [_N]),
        (lambda n, m: m >> n, [_N, _N[::-1]]),
        (lambda n, m: lax.shift_right_arithmetic(m.astype(np.int32), n.astype(np.int32)), [_N, _N[::-1]]),
        (lambda n: lax.clz(n), [_N]),
        (lambda n, m: ~n ^ (n | m) & n, [_N, _N[::-1]]),
        (lambda n: lax.bitcast_convert_type(lax.bitcast_convert_type(n, np.uint8), np.uint32), [_N]),
        (lambda n: jnp.concatenate([n[1:3], n.reshape(2, 4).T[1]]), [_N]),
        (lambda n, i: lax.dynamic_update_slice(n, lax.dynamic_slice(n, [i], [3]), [np.int32(5)]), [_N, np.int32(7)]),
        (lambda n, i: lax.cond(i > 3, lambda n: n + np.uint32(1), lambda n: n * n, n), [_N, np.int32(7)]),
        (lambda n, i: lax.switch(i, [lambda n: n, lambda n: n * n, lambda n: n - n[0]], n), [_N, np.int32(7)]),
        (lambda n, i: lax.fori_loop(0, i, lambda i, n: n * np.uint32(3) + i.astype(np.uint32), n), [_N, np.int32(7)]),
        (lambda n: (lax.iota(np.uint32, 8) * n, (n > np.uint32(5)).any()), [_N]),
    ],
)
def test_each_operation_is_that_of_jax(function, arguments):
    expected = jax.tree.leaves(jax.jit(function)(*arguments))
    for got, right in zip(program(_lowered(function, *arguments), EXACT)(arguments), expected, strict=True):
        right = np.asarray(right)
        assert got.dtype == right.dtype
        assert np.array_equal(got, right, equal_nan=right.dtype.kind == "f") or not differing(got, right).any()


@pytest.mark.parametrize(
    ("row", "dtype"), sampled([(row, dtype) for row in FULL for dtype in ("float32", *HALVES)], lambda row, dtype: dtype == "float32")
)
def test_what_is_lowered_for_a_tpu_gives_the_golden_bits(row, dtype):
    """With corrected quotients and roots, and binary64 by integers: the program that a TPU's compiler is given."""
    built = programs.train_step(row, dtype)
    text = _lowered(built.function, *built.arguments, platform="tpu")
    assert "f64[" not in text
    found = golden.walk(
        walker(program(text, Machine(off=24))), row, dtype, {**golden.CONFIGURATION, "steps": golden.CONFIGURATION["every"]}
    )
    expected = golden.hashes(golden.read())["flushed"]
    assert {stream: hashes == expected[f"{row} | {stream} | {dtype}"][:1] for stream, hashes in found.items()} == dict.fromkeys(found, True)


def _lowered(function, *arguments, platform: str = "cpu") -> str:
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text(dialect="hlo")
