"""The norm: the correctly rounded one, of MPFR, in any order and anywhere. The clips: from the formula, in NumPy; and stock's."""

# gmpy2's stub leaves its functions out.
# pyright: reportAttributeAccessIssue=false

import math
import subprocess
import sys
from functools import partial
from typing import Any

import gmpy2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxopt_impl import clip_by_global_norm, clip_by_value, global_norm
from jaxopt_impl.around import norm as ours
from optparity._arrays import to_numpy, to_torch
from optparity.parity.bits import differing, ulp_distance
from optparity.parity.subnormals import jax_flushes, torch_flushing_like_jax
from torch_ref import clip_grad_norm_, clip_grad_value_, get_total_norm
from torch_ref.around import norm as theirs

from ..sampling import EXHAUSTIVE, sampled

DTYPES = ("float32", "float64", "bfloat16", "float16")
LAYOUTS = {  # the leaves of a tree
    "float32": (("float32", 40), ("float32", 17)),
    "bfloat16": (("bfloat16", 60),),
    "float16": (("float16", 33), ("float16", 1)),
    "float64": (("float64", 50), ("float64", 3)),
    "mixed": (("bfloat16", 20), ("float16", 9), ("float32", 30)),
    "mixed with float64": (("float32", 20), ("float64", 9), ("bfloat16", 5)),
}
SCALES = {"float16": (-4.0, 4.0), "float32": (-42.0, 38.0), "bfloat16": (-42.0, 38.0), "float64": (-320.0, 307.0)}  # powers of ten


def correctly_rounded(leaves, dtype) -> np.generic:
    """The norm of the numbers as they are, subnormals flushed where this backend flushes: exact in MPFR, and rounded once."""
    least = {"float64": np.finfo(np.float64).tiny}
    with gmpy2.context(precision=8000):
        total = gmpy2.mpfr(0)
        for x in leaves:
            wide = x.astype(np.float64).ravel()
            kept = wide[np.abs(wide) >= least.get(x.dtype.name, np.finfo(np.float32).tiny)] if jax_flushes() else wide
            for number in kept:
                total += gmpy2.mpfr(float(number)) ** 2
    with gmpy2.context(precision=53 if dtype == "float64" else 24), np.errstate(over="ignore"):
        return np.dtype(dtype).type(float(gmpy2.sqrt(total)))


def trees(layout: str, number: int, seed=0) -> list[np.ndarray]:
    """So many trees, as the rows of their leaves: numbers of one size, of many sizes, and small whole numbers, each at any scale."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=(number, 1))
    leaves = []
    for dtype, size in LAYOUTS[layout]:
        normal = rng.standard_normal((number, size))
        sizes = np.where(kind == 1, 10.0 ** rng.uniform(-8, 0, (number, size)), 1.0)
        whole = rng.integers(-3, 4, (number, size))
        scale = 10.0 ** rng.uniform(*SCALES[dtype if "mixed" not in layout else "float16"], (number, 1))
        with np.errstate(over="ignore", under="ignore"):
            x = (np.where(kind == 2, whole, normal) * sizes * scale).astype(jnp.dtype(dtype))
            largest = np.asarray(jnp.finfo(dtype).max, x.dtype)
            leaves.append(np.clip(x, -largest, largest))
    return leaves


def own_dtype(leaves) -> str:
    return "float64" if any(x.dtype == np.float64 for x in leaves) else "float32"


def in_jax(leaves) -> np.ndarray:
    """The norm of every row."""
    with jax.enable_x64(own_dtype(leaves) == "float64"):
        return np.asarray(jax.jit(jax.vmap(global_norm))([jnp.asarray(x) for x in leaves]))


def in_torch(leaves) -> np.ndarray:
    with torch_flushing_like_jax():
        rows = zip(*leaves, strict=True)
        return np.array([get_total_norm([to_torch(x, copy=True) for x in row]).numpy() for row in rows])


def many(layouts=tuple(LAYOUTS)) -> Any:
    """Sixty trees of each, and as many as the issue wants."""
    cases = [(layout, number) for layout in layouts for number in (60, 10_000)]
    return pytest.mark.parametrize(("layout", "number"), sampled(cases, lambda layout, number: number == 60))


@many()
def test_it_is_the_correctly_rounded_norm(layout, number):
    leaves = trees(layout, number)
    dtype = own_dtype(leaves)
    expected = np.array([correctly_rounded(row, dtype) for row in zip(*leaves, strict=True)])
    for found in (in_jax(leaves), in_torch(leaves)):
        assert found.dtype == dtype
        assert not differing(found, expected).any()


@many([layout for layout in LAYOUTS if "float64" not in layout])
def test_by_integers_it_is_the_same(layout, number):
    """What TPUs compute: the digits of the sum, and the root."""
    leaves = [jnp.asarray(x) for x in trees(layout, number, seed=1)]

    @jax.jit
    @jax.vmap
    def both_ways(leaves):
        with jax.enable_x64(True):
            arrays = [x.astype(np.float32) for x in leaves]
            bits, digits = ours.layout(sum(x.size for x in arrays), "float32")
            largest = ours.magnitude(arrays, np.dtype(np.float32), None)
            sums = ours.sums_of_squares(largest, *arrays, bits=bits, digits=digits)
            by_integers = ours.sums_by_integers(largest, *arrays, bits=bits, digits=digits)
            return sums, by_integers, ours.root32(sums, largest, bits=bits), ours.root_by_integers(by_integers, largest, bits=bits)

    sums, by_integers, root, root_by_integers = map(np.asarray, both_ways(leaves))
    assert not differing(root, root_by_integers).any()
    bits, _ = ours.layout(sum(x.shape[1] for x in leaves), "float32")
    for one, other in zip(sums[root > 0].tolist(), by_integers[root > 0].tolist(), strict=True):
        assert (one[0] << bits) + one[1] == (other[0] << bits) + other[1]
        assert (one[2] > 0) == (other[2] > 0)


@pytest.mark.parametrize("dtype", sampled([(dtype,) for dtype in DTYPES], lambda dtype: dtype in ("float64", "bfloat16")))
def test_order_leaves_and_shapes_change_nothing(dtype):
    x = trees(dtype, 1, seed=2)[0][0]
    x = np.concatenate([x, x * x.dtype.type(0.37), np.flip(x)])
    shuffled = np.random.default_rng(3).permutation(x)
    ways = {
        "one leaf": [x],
        "shuffled": [shuffled],
        "split": np.split(shuffled, [1, 7, 30]),
        "a matrix": [shuffled[: x.size // 2 * 2].reshape(2, -1), shuffled[x.size // 2 * 2 :]],
        "with empty leaves": [x[:0], x, np.zeros((0, 3), x.dtype)],
        "numbers of no shape": [x[0], x[1:]],
    }
    found = {way: np.asarray(global_norm([jnp.asarray(part) for part in parts])) for way, parts in ways.items()}
    found |= {f"torch, {way}": get_total_norm([to_torch(np.array(part)) for part in parts]).numpy() for way, parts in ways.items()}
    assert {way: norm.tobytes() for way, norm in found.items()} == dict.fromkeys(found, found["one leaf"].tobytes())


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("special", [None, np.nan, np.inf])
def test_devices_change_nothing(devices, special):
    """Spread by `jit`, where XLA's own maximum over devices loses a NaN, and by hand."""
    tree = {"w": np.array(trees("float32", 16, seed=4)[0]), "b": np.array(trees("bfloat16", 1, seed=4)[0][0, :16])}
    if special is not None:
        tree["w"][11, 3] = special
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    spec = PartitionSpec("data")
    spread = jax.device_put(tree, NamedSharding(mesh, spec))
    norm = partial(global_norm, axis_name="data")
    by_hand = jax.shard_map(norm, mesh=mesh, in_specs=({"w": spec, "b": spec},), out_specs=PartitionSpec())
    expected = np.asarray(global_norm(jax.tree.map(jnp.asarray, tree)))
    assert special is None or np.isnan(expected) == np.isnan(special)
    assert not differing(np.asarray(jax.jit(global_norm)(spread)), expected)
    assert not differing(np.asarray(jax.jit(by_hand)(spread)), expected)


def test_the_largest_sums_there_are_fit():
    """Every number as large as the largest, on one device, and on eight that count their own."""
    x = np.full(2**17, np.nextafter(np.float32(2), np.float32(0)))
    expected = correctly_rounded([x], "float32")
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    by_hand = jax.shard_map(partial(global_norm, axis_name="data"), mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec())
    assert np.asarray(global_norm(x)) == np.asarray(jax.jit(by_hand)(x)) == expected
    assert get_total_norm(torch.from_numpy(x)).numpy() == expected


RANK = """
import sys, torch
from torch import distributed
from torch_ref import get_total_norm
number, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=number, world_size=2)
trees = torch.load(f"{folder}/trees")
torch.save([get_total_norm(tree[number], group=distributed.group.WORLD) for tree in trees], f"{folder}/{number}")
distributed.destroy_process_group()
"""


@EXHAUSTIVE
def test_ranks_change_nothing(tmp_path):
    """Two processes, with other numbers of elements, other dtypes, or nothing."""
    x = torch.from_numpy(trees("float32", 5, seed=5)[0])
    nan = torch.tensor([math.nan, 1.0])
    parts = [([x[:1], x[1:2]], [x[2:]]), ([], [x]), ([x], [x[:2].double()]), ([nan[1:]], [-nan]), ([], [])]
    torch.save(parts, tmp_path / "trees")
    processes = [subprocess.Popen([sys.executable, "-c", RANK, str(number), str(tmp_path)]) for number in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    for i, (one, other) in enumerate(parts):
        expected = get_total_norm([*one, *other]).numpy()
        for number in range(2):
            assert not differing(torch.load(tmp_path / str(number))[i].numpy(), expected)


SPECIAL = {
    "nothing": ([], 0.0),
    "an empty leaf": ([[]], 0.0),
    "zeros of both signs": ([[0.0, -0.0]], 0.0),
    "one number": ([[-1.1]], 1.1),
    "squares that overflow": ([[3e30], [-4e30]], 5e30),
    "squares that underflow": ([[3e-30], [4e-30]], 5e-30),
    "a norm that overflows": ([[3e38, 3e38]], math.inf),
    "the largest number": ([[3.4028234663852886e38, 1.0]], 3.4028234663852886e38),
    "infinities": ([[-math.inf, 1.0], [math.inf]], math.inf),
    "NaN": ([[1.0], [math.nan]], math.nan),
    "NaN and infinity": ([[math.inf, math.nan], [-math.inf]], math.nan),
}


@pytest.mark.parametrize(("leaves", "expected"), SPECIAL.values(), ids=SPECIAL)
def test_special_numbers(leaves, expected):
    leaves = [np.array(x, np.float32) for x in leaves]
    for found in (np.asarray(global_norm(leaves)), get_total_norm(list(map(torch.from_numpy, leaves))).numpy()):
        assert not differing(found, np.array(expected, np.float32))


@pytest.mark.parametrize("leaf", [[1.2e308, -5e307], [1.7e308, 1.7e308], [3e-308, 4e-308], [5e-308], [2.0**1022], [2.0**-1022]])
def test_the_ends_of_float64(leaf):
    leaf = np.array(leaf)
    expected = correctly_rounded([leaf], "float64")
    with jax.enable_x64(True):
        assert np.asarray(global_norm(leaf)) == expected
    assert get_total_norm(torch.from_numpy(leaf)).numpy() == expected


def squares_that_sum_to(total: int) -> list[float]:
    """Whole numbers whose squares sum to this."""
    found = []
    while total:
        found.append(float(math.isqrt(total)))
        total -= int(found[-1]) ** 2
    return found


@pytest.mark.parametrize("middle", [2**24 + 1, 2**24 + 3, 2**24 + 1_234_567])
@pytest.mark.parametrize("little", [-1, 0, 2.0**-20, 2.0**-70])
def test_beside_a_number_between_two_of_float32(middle, little):
    """The exact norm is the odd number, or a little beside it, by less than a sum in float64 could tell."""
    parts = [math.isqrt(middle**2 // 2)] * 2
    rest = squares_that_sum_to(middle**2 - 2 * parts[0] ** 2 - (little < 0))
    leaf = np.array([*parts, *rest, *([little] if little > 0 else [1 - 2.0**-12] if little < 0 else [])], np.float32)
    assert [int(part) for part in leaf[:2]] == parts  # each is a float32
    expected = correctly_rounded([leaf], "float32")
    even = min(np.float32(middle - 1), np.float32(middle + 1), key=lambda x: int(x) // 2 % 2)
    assert expected == (even if little == 0 else np.float32(middle + math.copysign(1, little)))
    assert np.asarray(global_norm(leaf)) == expected
    assert get_total_norm(torch.from_numpy(leaf)).numpy() == expected


@pytest.mark.parametrize("little", [[], [2.0**-20], [2.0**-100 * (1 + 2.0**-40)], [1.3e-160], [2e-300]])
def test_beside_a_number_between_two_of_float64(little):
    a = 2.0**51 + 1  # 5a is odd, and beyond 2⁵³
    leaf = np.array([3 * a, -4 * a, *little])
    expected = correctly_rounded([leaf], "float64")
    assert int(expected) - 5 * int(a) == (1 if little else -1)
    with jax.enable_x64(True):
        assert np.asarray(global_norm(leaf)) == expected
    assert get_total_norm(torch.from_numpy(leaf)).numpy() == expected


def test_the_layout_leaves_room_and_is_fine_enough():
    """On paper, for as many elements as there will ever be: no sum overflows, and the errors are those that the page says."""
    for dtype, most in {"float32": -41, "float64": -74}.items():
        for k in range(32 if dtype == "float32" else 34):
            for count in {1 << k, max(1, (1 << k) - 1)}:
                bits, digits = ours.layout(count, dtype)
                assert (bits, digits) == theirs.layout(count, dtype)
                assert count << bits <= 1 << 62
                assert bits * digits - 2 >= 63  # so that the root has 63 bits to begin with
                assert math.log2(4 * count) - bits * digits <= most
                assert digits == 2 + (k > 27) + (dtype == "float64")


@pytest.mark.parametrize("layout", [(35, 2), (31, 3), (29, 4)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_layouts_of_many_elements(layout, dtype, monkeypatch):
    """Those of 2²⁷, of 2³¹, and of 2³¹ in float64, on few."""
    for module in (ours, theirs):
        monkeypatch.setattr(module, "layout", lambda count, dtype: layout)
    ours._norm.clear_cache()
    leaves = [np.concatenate(list(x)) for x in trees(dtype, 3, seed=10)]
    expected = correctly_rounded(leaves, dtype)
    with jax.enable_x64(True):
        assert np.asarray(global_norm(leaves)) == expected
    ours._norm.clear_cache()
    assert get_total_norm([torch.from_numpy(x) for x in leaves]).numpy() == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["torch", "optax"])
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e4])
def test_the_clip_is_the_formula(dtype, form, max_norm):
    """In NumPy: halves in float32, each operation rounded to the half."""
    kind = jnp.dtype(dtype)
    wide = np.dtype(np.float64 if dtype == "float64" else np.float32).type
    g = (np.random.default_rng(6).standard_normal(300) * 10.0 ** np.random.default_rng(7).uniform(-3, 2, 300)).astype(kind)
    norm = wide(correctly_rounded([g], "float64" if dtype == "float64" else "float32"))

    def rounded(x):
        return x.astype(kind).astype(wide)

    if form == "torch":
        expected = rounded(g.astype(wide) * min(wide(max_norm) / (norm + wide(1e-6)), wide(1)))
    else:
        expected = rounded(rounded(g.astype(wide) / norm) * wide(max_norm)) if norm >= max_norm else g.astype(wide)
    tx = clip_by_global_norm(max_norm, form)
    updates, state = jax.jit(tx.update)(jnp.asarray(g), tx.init(jnp.asarray(g)))
    p = torch.nn.Parameter(torch.zeros(300, dtype=getattr(torch, dtype)))
    p.grad = to_torch(g, copy=True)
    assert clip_grad_norm_(p, max_norm, form=form).numpy() == np.asarray(state.norm) == norm
    for found in (np.asarray(updates), to_numpy(p.grad)):
        assert not differing(found, expected.astype(kind)).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_stock_clips_are_near(dtype):
    """Ours by the formulas that stock has: within two units, of the halves within a few, whose coefficients are halves there."""
    g = (np.random.default_rng(8).standard_normal(300) + 0.5).astype(jnp.dtype(dtype))
    few = 5 if dtype in ("bfloat16", "float16") else 2
    p, q = (torch.nn.Parameter(torch.zeros(300, dtype=getattr(torch, dtype))) for _ in range(2))
    p.grad, q.grad = to_torch(g, copy=True), to_torch(g, copy=True)
    clip_grad_norm_([p], 0.7)
    torch.nn.utils.clip_grad_norm_([q], 0.7)
    assert ulp_distance(to_numpy(p.grad), to_numpy(q.grad)).max() <= few
    found, stock = (
        np.asarray(jax.jit(tx.update)(jnp.asarray(g), tx.init(jnp.asarray(g)))[0])
        for tx in (clip_by_global_norm(0.7, "optax"), optax.clip_by_global_norm(0.7))
    )
    assert ulp_distance(found, stock).max() <= few


@pytest.mark.parametrize("dtype", DTYPES)
def test_by_value_stock_is_the_same(dtype):
    g = np.array([0.0, -0.0, 0.1, -0.1, 0.3, -0.3, 7, -7, math.nan, math.inf, -math.inf]).astype(jnp.dtype(dtype))
    p, q = (torch.nn.Parameter(torch.zeros(g.size, dtype=getattr(torch, dtype))) for _ in range(2))
    p.grad, q.grad = to_torch(g, copy=True), to_torch(g, copy=True)
    clip_grad_value_([p], 0.3)
    torch.nn.utils.clip_grad_value_([q], 0.3)
    found = [np.asarray(tx.update(jnp.asarray(g), tx.init(jnp.asarray(g)))[0]) for tx in (clip_by_value(0.3), optax.clip(0.3))]
    for other in (found[1], to_numpy(p.grad), to_numpy(q.grad)):
        assert not differing(found[0], other).any()


def test_mixed_dtypes_and_absent_gradients():
    """A float64 among them: the norm is one, and each leaf is scaled in its own dtype."""
    rng = np.random.default_rng(9)
    gradients = [rng.standard_normal(20).astype(jnp.dtype(dtype)) for dtype in DTYPES]
    for form in ("torch", "optax"):
        for absent in (None, 1):
            own = [None if i == absent else g for i, g in enumerate(gradients)]
            parameters = [torch.nn.Parameter(to_torch(np.zeros_like(g))) for g in gradients]
            for p, g in zip(parameters, own, strict=True):
                p.grad = None if g is None else to_torch(g, copy=True)
            with jax.enable_x64(True):
                tx = clip_by_global_norm(1.0, form)
                updates, state = jax.jit(tx.update)([g if g is None else jnp.asarray(g) for g in own], tx.init(gradients))
            norm = clip_grad_norm_(parameters, 1.0, form=form)
            assert norm.dtype == (torch.float32 if absent == 1 else torch.float64)
            assert not differing(np.asarray(state.norm), norm.double().numpy())
            for p, u in zip(parameters, updates, strict=True):
                assert (p.grad is None) == (u is None)
                assert u is None or not differing(np.asarray(u), to_numpy(p.grad)).any()


def test_the_second_step_compiles_nothing_and_the_state_is_its_own():
    g = jnp.ones(8)
    tx = clip_by_global_norm(1.0)
    update = jax.jit(tx.update, donate_argnums=1)
    state = tx.init(g)
    assert state.norm.dtype == jnp.float32
    for _ in range(3):
        _, state = update(g, state)
    assert update._cache_size() == 1
    assert float(state.norm) == np.sqrt(np.float32(8))


def test_a_norm_that_is_not_finite_is_an_error_where_one_is_wanted():
    """In torch's words, before anything is scaled."""
    p = torch.nn.Parameter(torch.ones(2))
    for clip in (clip_grad_norm_, torch.nn.utils.clip_grad_norm_):
        p.grad = torch.tensor([math.inf, 1.0])
        with pytest.raises(RuntimeError, match=r"The total norm of order 2\.0 for gradients from `parameters` is non-finite") as error:
            clip([p], 1.0, error_if_nonfinite=True)
        assert p.grad.tolist() == [math.inf, 1.0]
        assert "To disable this error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`" in str(
            error.value
        )
    assert math.isinf(clip_grad_norm_([p], 1.0))


def test_refusals():
    with pytest.raises(ValueError, match=r"Invalid norm_type value: 1 \(clip_by_global_norm: norm_type = 2\)"):
        clip_grad_norm_([], 1.0, norm_type=1)
    for dtype, kind in (("int32", torch.int32), ("complex64", torch.complex64)):
        tree = {"a": jnp.ones(2), "b": jnp.ones(2, dtype)}
        needed = r"; a floating-point dtype \(float32, float64, bfloat16, float16\) is needed"
        for name, run in {
            "global_norm": global_norm,
            "clip_by_global_norm": clip_by_global_norm(1.0).init,
            "clip_by_value": clip_by_value(1.0).init,
        }.items():
            with pytest.raises(TypeError, match=rf"{name}: leaf params\['b'\] has dtype {dtype}{needed}"):
                run(tree)
        with pytest.raises(TypeError, match=rf"global_norm: leaf params\[1\] has dtype {dtype}{needed}"):
            get_total_norm([torch.ones(2), torch.ones(2, dtype=kind)])
    with pytest.raises(TypeError, match=r"global_norm: the gradient of leaf params\[0\] is sparse_coo; a dense gradient is needed"):
        get_total_norm([torch.ones(2).to_sparse()])
