"""The interpreter of PTX, on kernels written by hand. No compiler is needed."""

import ml_dtypes
import numpy as np
import pytest

from optparity.accelerators import cuda, programs, ptx
from optparity.accelerators.compiling import Compiled
from optparity.accelerators.programs import Program
from optparity.accelerators.ptx import UnknownError
from optparity.accelerators.ptx_interpreter import Memory, is_known, run
from optparity.parity.bits import differing

LANES = 64
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = {"f16": np.dtype(np.float16), "bf16": BFLOAT16, "f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}
KERNEL = """
.version 8.8
.target sm_90a
.visible .entry kernel(
	.param .u64 .ptr .align 16 kernel_param_0,
	.param .u64 .ptr .align 16 kernel_param_1,
	.param .u64 .ptr .align 16 kernel_param_2,
	.param .u64 .ptr .align 16 kernel_param_3
)
.reqntid 32, 1, 1
{
	.reg .pred 	%p<9>;

	ld.param.b64 	%rd1, [kernel_param_0];
	ld.param.b64 	%rd2, [kernel_param_1];
	ld.param.b64 	%rd3, [kernel_param_2];
	ld.param.b64 	%rd4, [kernel_param_3];
	mov.u32 	%r1, %ctaid.x;
	mov.u32 	%r2, %tid.x;
	shl.b32 	%r3, %r1, 5;
	or.b32  	%r4, %r3, %r2;
BODY
	ret;

}
"""
LOADED = """
	mul.wide.u32 	%rd5, %r4, {size};
	add.s64 	%rd6, %rd1, %rd5;
	add.s64 	%rd7, %rd2, %rd5;
	ld.global.b{bits} 	%x1, [%rd6];
	ld.global.nc.b{bits} 	%x2, [%rd7];
	{opcode} 	%x3, {operands};
	mul.wide.u32 	%rd8, %r4, {size_out};
	add.s64 	%rd9, %rd3, %rd8;
	st.global.b{bits_out} 	[%rd9], %x3;
"""


def computed(body: str, *arrays: np.ndarray) -> np.ndarray:
    """The third array as a kernel of this body leaves it; a fourth may be there."""
    memory = Memory()
    addresses = [memory.allocate(x.nbytes) for x in arrays]
    for address, x in zip(addresses, arrays, strict=True):
        memory.view(address, x.dtype, x.size)[...] = x
    (kernel,) = ptx.kernels(KERNEL.replace("BODY", body))
    run(kernel, LANES // 32, 32, [*addresses, *addresses[:1]][:4], memory)
    return memory.view(addresses[2], arrays[2].dtype, arrays[2].size).copy()


def apply(opcode: str, a: np.ndarray, b: np.ndarray, out: np.dtype, operands: str = "%x1, %x2") -> np.ndarray:
    """The results of one instruction, of which the first operand is the result."""
    sizes = {"size": a.itemsize, "bits": 8 * a.itemsize, "size_out": out.itemsize, "bits_out": 8 * out.itemsize}
    return computed(LOADED.format(opcode=opcode, operands=operands, **sizes), a, b, np.zeros(LANES, out))


def floats(dtype: np.dtype, seed: int = 0) -> np.ndarray:
    """Of any exponent, subnormals, zeros, infinities and NaN."""
    bits = np.random.default_rng(seed).integers(0, 2 ** (8 * dtype.itemsize), LANES, np.uint64, endpoint=False)
    x = bits.astype(f"u{dtype.itemsize}").view(dtype).copy()
    x[:8] = np.roll(np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-7], dtype), seed)
    return x


def same(got: np.ndarray, right: np.ndarray) -> None:
    assert got.dtype == right.dtype
    assert not differing(got, right).any() if got.dtype.kind not in "iu" else (got == right).all()


@pytest.mark.parametrize("t", FLOATS)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_arithmetic_rounds_once(name, t):
    if name == "div" and t in ("f16", "bf16"):
        assert not is_known(f"div.rn.{t}")
        return
    a, b = floats(FLOATS[t]), floats(FLOATS[t], 1)
    with np.errstate(all="ignore"):
        exact = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}[name]
        right = exact(*(x.astype(np.longdouble if t == "f64" else np.float64) for x in (a, b))).astype(FLOATS[t])
    same(apply(f"{name}.rn.{t}", a, b, FLOATS[t]), right)


@pytest.mark.parametrize(
    ("opcode", "function"),
    [
        ("sqrt.rn", np.sqrt),
        ("rcp.rn", lambda x: 1 / x),
        ("neg", lambda x: -x),
        ("abs", np.abs),
    ],
)
@pytest.mark.parametrize("t", ["f32", "f64"])
def test_functions_of_one_number(opcode, function, t):
    a = floats(FLOATS[t])
    with np.errstate(all="ignore"):
        same(apply(f"{opcode}.{t}", a, a, FLOATS[t], "%x1"), function(a))


@pytest.mark.parametrize("t", ["f32", "f64"])
def test_a_sign_is_that_of_the_first_operand(t):
    a, b = floats(FLOATS[t]), floats(FLOATS[t], 1)
    same(apply(f"copysign.{t}", a, b, FLOATS[t]), np.copysign(b, a))


@pytest.mark.parametrize("t", FLOATS)
def test_the_larger_of_two(t):
    a, b = (np.array([x, y] * (LANES // 2), FLOATS[t]) for x, y in ((np.nan, -0.0), (2.0, 0.0)))
    same(apply(f"max.{t}", a, b, FLOATS[t]), np.array([2.0, 0.0] * (LANES // 2), FLOATS[t]))
    same(apply(f"max.{t}", b, a, FLOATS[t]), np.array([2.0, 0.0] * (LANES // 2), FLOATS[t]))
    same(apply(f"max.NaN.{t}", b, a, FLOATS[t]), np.array([np.nan, 0.0] * (LANES // 2), FLOATS[t]))


@pytest.mark.parametrize(
    ("to", "source"), [("f16", "f32"), ("bf16", "f32"), ("f32", "f64"), ("f32", "f16"), ("f64", "bf16"), ("f64", "f32")]
)
def test_conversions(to, source):
    a = floats(FLOATS[source])
    narrows = FLOATS[to].itemsize < FLOATS[source].itemsize
    with np.errstate(all="ignore"):
        same(apply(f"cvt{'.rn' if narrows else ''}.{to}.{source}", a, a, FLOATS[to], "%x1"), a.astype(FLOATS[to]))


def test_two_halves_in_one_register():
    a, b = (np.linspace(x, x + 1, LANES).astype(np.float32) for x in (0, 5))
    lower, upper = (x.astype(BFLOAT16).view(np.uint16).astype(np.uint32) for x in (b, a))
    same(apply("cvt.rn.bf16x2.f32", a, b, np.dtype(np.uint32)), upper << 16 | lower)
    c, d = (np.arange(x, x + LANES, dtype=np.uint16) for x in (0, 1000))
    same(apply("mov.b32", c, d, np.dtype(np.uint32), "{%x1, %x2}"), d.astype(np.uint32) << 16 | c)


@pytest.mark.parametrize(
    ("opcode", "function"),
    [
        ("add.s32", lambda a, b: a + b),
        ("sub.s32", lambda a, b: a - b),
        ("mul.lo.s32", lambda a, b: a * b),
        ("and.b32", lambda a, b: a & b),
        ("or.b32", lambda a, b: a | b),
        ("xor.b32", lambda a, b: a ^ b),
        ("shr.s32", lambda a, b: a >> np.clip(b.view(np.uint32), 0, 31).astype(np.int32)),
        ("shl.b32", lambda a, b: np.where(b.view(np.uint32) > 31, 0, a << (b & 31)).astype(np.int32)),
        ("shr.u32", lambda a, b: np.where(b.view(np.uint32) > 31, 0, a.view(np.uint32) >> (b & 31).view(np.uint32)).astype(np.int32)),
    ],
)
def test_integers(opcode, function):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-(2**31), 2**31, LANES, np.int32, endpoint=False) for _ in range(2))
    b[::2] %= 40
    same(apply(opcode, a, b, np.dtype(np.int32)), function(a, b))


def test_a_field_of_bits_and_a_wide_product():
    a = np.random.default_rng(0).integers(0, 2**32, LANES, np.uint32, endpoint=False)
    same(apply("bfe.u32", a, a, np.dtype(np.uint32), "%x1, 16, 1"), a >> 16 & 1)
    same(apply("bfe.u32", a, a, np.dtype(np.uint32), "%x1, 8, 32"), a >> 8)
    same(apply("mul.wide.u32", a, a, np.dtype(np.uint64)), a.astype(np.uint64) ** 2)
    same(apply("mul.wide.s32", a, a, np.dtype(np.int64)), a.view(np.int32).astype(np.int64) ** 2)


COMPARED = """
	mul.wide.u32 	%rd5, %r4, 4;
	add.s64 	%rd6, %rd1, %rd5;
	add.s64 	%rd7, %rd2, %rd5;
	ld.global.b32 	%x1, [%rd6];
	ld.global.b32 	%x2, [%rd7];
	add.s64 	%rd9, %rd3, %rd5;
	mov.b32 	%x3, -1;
	setp.{how} 	%p1, %x1, %x2;
	{body}
	st.global.b32 	[%rd9], %x3;
"""


@pytest.mark.parametrize(
    ("how", "function"),
    [
        ("eq.f32", lambda a, b: a == b),
        ("ne.f32", lambda a, b: (a != b) & (a == a) & (b == b)),
        ("neu.f32", lambda a, b: a != b),
        ("lt.f32", lambda a, b: a < b),
        ("geu.f32", lambda a, b: ~(a < b)),
        ("nan.f32", lambda a, b: (a != a) | (b != b)),
        ("num.f32", lambda a, b: (a == a) & (b == b)),
        ("gt.u32", lambda a, b: a.view(np.uint32) > b.view(np.uint32)),
        ("lt.s32", lambda a, b: a.view(np.int32) < b.view(np.int32)),
        ("eq.b32", lambda a, b: a.view(np.int32) == b.view(np.int32)),
    ],
)
@pytest.mark.parametrize(
    ("body", "otherwise"),
    [
        ("selp.b32 %x3, 7, 9, %p1;", 9),
        ("@%p1 mov.b32 %x3, 7;", -1),
        ("@!%p1 mov.b32 %x3, 9;\n\t@%p1 mov.b32 %x3, 7;", 9),
        ("@!%p1 bra $L1;\n\tmov.b32 %x3, 7;\n$L1:", -1),
        ("@!%p1 bra $L1;\n\tmov.b32 %x3, 7;\n\tbra.uni $L2;\n$L1:\n\tmov.b32 %x3, 9;\n$L2:", 9),
    ],
    ids=["chosen", "guarded", "guarded twice", "left out", "two ways"],
)
def test_comparisons_and_what_hangs_on_them(how, function, body, otherwise):
    a, b = floats(FLOATS["f32"]), floats(FLOATS["f32"], 1)
    b[::3] = a[::3]
    right = np.where(function(a, b), 7, otherwise).astype(np.int32)
    same(computed(COMPARED.format(how=how, body=body), a, b, np.zeros(LANES, np.int32)), right)


def test_threads_that_are_gone_store_nothing():
    body = """
	setp.gt.u32 	%p1, %r4, 40;
	@%p1 bra 	$L1;
	mul.wide.u32 	%rd5, %r4, 4;
	add.s64 	%rd6, %rd1, %rd5;
	ld.global.b32 	%r5, [%rd6];
	add.s64 	%rd7, %rd3, %rd5;
	st.global.b32 	[%rd7], %r5;
$L1:"""
    a, short = np.arange(1, 65, dtype=np.float32), np.zeros(44, np.float32)
    same(computed(body, a[:44], a[:44], short), np.where(np.arange(44) > 40, 0, a[:44]).astype(np.float32))


def test_neighbours_are_moved_together():
    body = """
	mul.wide.u32 	%rd5, %r4, 16;
	add.s64 	%rd6, %rd1, %rd5;
	ld.global.nc.v4.b32 	{%r5, %r6, %r7, %r8}, [%rd6];
	add.s64 	%rd7, %rd3, %rd5;
	st.global.v2.b32 	[%rd7], {%r8, %r7};
	st.global.v2.b32 	[%rd7+8], {%r6, %r5};"""
    a = np.arange(4 * LANES, dtype=np.int32)
    same(computed(body, a, a, np.zeros_like(a)), a.reshape(-1, 4)[:, ::-1].ravel())


def test_a_product_of_bfloat16_is_written_as_an_fma_with_minus_zero():
    a, b = floats(BFLOAT16), floats(BFLOAT16, 1)
    with np.errstate(all="ignore"):
        right = a * b
    body = "mov.b16 %rs1, 0x8000;\n\tfma.rn.bf16"
    same(apply(body, a, b, BFLOAT16, "%x1, %x2, %rs1"), right)
    for other in ("mov.b16 %rs1, 0x0000;", "mov.b16 %rs1, 0x8000;\n\tmov.b16 %rs1, 0x3F80;", ""):
        with pytest.raises(UnknownError, match=r"fma\.rn\.bf16 .*: an instruction that is not known"):
            apply(f"{other}\n\tfma.rn.bf16", a, b, BFLOAT16, "%x1, %x2, %rs1")


NOT_KNOWN = [
    *("fma.rn.f32", "fma.rn.f64", "fma.rn.bf16", "mad.rn.f32", "div.full.f32", "div.approx.f32", "sqrt.approx.f32", "rsqrt.approx.f32"),
    *("rcp.approx.ftz.f64", "add.f32", "add.rz.f32", "add.rn.ftz.f32", "mul.f64", "ex2.approx.f32", "cvt.rn.f16.f64", "cvt.rn.bf16.f64"),
    *("cvt.rz.f32.f64", "cvt.f32.f64", "cvt.rn.ftz.f16.f32", "max.ftz.f32", "add.rn.f16x2", "atom.global.add.f32", "bar.sync", "call"),
]


@pytest.mark.parametrize("opcode", NOT_KNOWN)
def test_what_is_not_known_is_refused_by_name(opcode):
    a = np.zeros(LANES, np.float32)
    assert not is_known(opcode)
    with pytest.raises(UnknownError, match=rf"^kernel: {opcode} %x3, %x1, %x2: an instruction that is not known"):
        apply(opcode, a, a, a.dtype)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("add.rn.f32 %r5, %r4, 1.0;", "1.0 as f32"),
        ("add.rn.f64 %r5, %rd1, 0f3F800000;", "0f3F800000 as f64"),
        ("add.rn.f64 %rd5, %r4, %rd1;", "%r4 as f64"),
        ("add.s32 %r5, %r4;", "1 operands; 2 are known"),
        ("add.s32 %r5, %r4, %r99;", "%r99"),
        ("add.s32 [%rd1], %r4, %r4;", r"\[%rd1\] as a destination"),
        ("add.s32 %r5, %r4, %clock;", "%clock"),
        ("selp.b32 %r5, %r4, %r4, %r4;", "%r4 as pred"),
        ("ld.global.b32 %r5, [%rd1+4096];", "a thread that reaches out of its buffer"),
        ("ld.global.b32 %r5, [%rd1+2];", "between numbers"),
        ("ld.global.v4.b32 {%r5, %r6}, [%rd1];", "an operand that is not known"),
        ("$L1:\n\tbra $L1;", "a branch backwards"),
        ("bra $L7;", "L7"),
        (".local .b8 x[4];", r"\.local \.b8 x\[4\]"),
        ("ADD %r5;", "kernel: ADD"),
    ],
)
def test_operands_and_lines_that_are_not_known(body, message):
    a = np.zeros(LANES, np.float32)
    with pytest.raises(UnknownError, match=message):
        computed(body, a, a, a)


def test_a_parameter_that_is_no_address():
    with pytest.raises(UnknownError, match="kernel: a parameter that is no address"):
        list(ptx.kernels(KERNEL.replace(".param .u64 .ptr .align 16 kernel_param_0", ".param .f32 kernel_param_0")))


def test_a_function_that_is_no_kernel():
    with pytest.raises(UnknownError, match="PTX with a function that is no kernel"):
        list(ptx.kernels(KERNEL + ".func helper() { ret; }"))


STARTED = "001: kCustomKernel [source | sink] {} grid: [1, 1, 1] threads: [1, 1, 1]  shared_memory: 0 bytes"


@pytest.mark.parametrize(
    ("started", "known"),
    [
        (STARTED.format("kernel"), True),
        (STARTED.format("other"), False),
        ("001: kCopy  [source | sink] kCopy", True),
        ("001: kCuDnn [source | sink] custom-call", False),
    ],
)
def test_what_is_started_must_have_been_read(started, known, tmp_path):
    (tmp_path / "kernels.ptx").write_text(KERNEL.replace("BODY", ""))
    (tmp_path / "launches.txt").write_text(f"{started}\n")
    found = cuda.problems(Compiled(Program("kernel", programs.train_step, None, "float32"), tmp_path))
    assert found == ([] if known else [f"XLA starts: {started}"])
