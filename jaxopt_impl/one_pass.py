"""The step of many leaves as one compiled call on CPUs, where the library is there; elsewhere, and for derivatives, the rule.

One primitive does it. Its operands are the hyper-parameters that only the run tells, [] each, then of each leaf its gradient, its
parameter where it is needed, and its state. What is traced holds no more than that: the lowering chooses.
"""

import functools
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray, Tracer
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from one_pass import library
from one_pass.program import Program

MOST_LEAVES = 32  # of a call: the time in which XLA compiles it grows with their cube
SMALL = 2**15  # elements of a leaf: to get memory for a larger update takes longer than XLA's loops over it, which need none
_TARGET = "optparity_one_pass"
TOLD = "told at run time"  # in the place of a hyper-parameter
_READ = ("float32", "float64", "int32")  # dtypes of hyper-parameters that the library reads


@dataclass(frozen=True)
class Call:
    """What a call does, but for its operands.

    Attributes:
        shell: the transform's, which has the rule.
        told: the hyper-parameters that only the run tells.
        dtype: the leaves'.
        has_p: whether the parameters are among the operands.
        applied: whether they are stepped, and returned in the place of the update.
        large: whether each leaf has more elements than `SMALL`.
        lanes: None; or how many of everything there are, along a first axis.
    """

    shell: Any
    told: tuple[str, ...]
    dtype: str
    has_p: bool
    applied: bool
    large: bool = False
    lanes: int | None = None

    @functools.cached_property
    def program(self) -> Program | None:
        """The library's, if it has one that keeps what this configuration keeps."""
        shell = self.shell
        hyper = shell.hyper._asdict()
        is_set = lambda name: not isinstance(hyper[name], numbers.Real) or bool(hyper[name])  # noqa: E731
        found = library.find(library.Kernel(*shell.kernel), is_set)
        return found if found and set(found.fields) == set(shell.kept) else None

    @property
    def each(self) -> int:
        """Operands for each leaf."""
        return 1 + self.has_p + len(self.shell.kept)

    def leaves(self, operands: Sequence[Any]) -> list[Sequence[Any]]:
        """The operands of each leaf."""
        rest = operands[len(self.told) :]
        return [rest[i : i + self.each] for i in range(0, len(rest), self.each)]


def applies(shell: Any) -> bool:
    """Whether the library has this transform's rule."""
    return Call(shell, (), "", has_p=False, applied=False).program is not None


def takes(arrays: Sequence[Any]) -> bool:
    """Whether arrays may be operands of one call: on the same devices, and of no type that says how they are spread.

    Such types (within `shard_map`, or on a mesh of explicit axes) are worked out through the rule's own operations.
    """
    devices = set()
    for x in arrays:
        if isinstance(x, Tracer):
            aval = jax.typeof(x)
            if getattr(aval, "vma", None) or not aval.sharding.mesh.empty:
                return False
        elif x.committed:
            devices.add(frozenset(x.devices()))
    return len(devices) <= 1


def step(shell: Any, values: Mapping[str, Any], t: Any, leaves: Sequence[tuple], *, applied: bool) -> list[tuple[Any, dict[str, Any]]]:
    """For each leaf (gradient, own arrays by name, dtype) its update, or with `applied` its next parameter, and its next state.

    One call for up to `MOST_LEAVES` leaves of a dtype.
    """
    told = {"t": t} | {
        name: _told(value) for name, value in values.items() if name != "t" and not isinstance(value, numbers.Real | np.ndarray)
    }
    groups: dict[tuple[str, str, bool], list[int]] = {}
    for i, (g, _, dtype) in enumerate(leaves):
        groups.setdefault((dtype, g.dtype.name, g.size > SMALL), []).append(i)
    results: list[Any] = [None] * len(leaves)
    shell = shell.with_told(told)
    fields = list(shell.kept)
    parts = [(key, own[i : i + MOST_LEAVES]) for key, own in groups.items() for i in range(0, len(own), MOST_LEAVES)]
    for (dtype, _, large), indices in parts:
        has_p = applied or leaves[indices[0]][1]["p"] is not None
        operands = list(told.values())
        for i in indices:
            g, own, _ = leaves[i]
            operands += [g, *([own["p"]] if has_p else []), *(own[field] for field in fields)]
        flat = _step.bind(*operands, call=Call(shell, tuple(told), dtype, has_p, applied, large))
        for place, i in enumerate(indices):
            u, *state = flat[place * (1 + len(fields)) : (place + 1) * (1 + len(fields))]
            results[i] = (u, dict(zip(fields, state, strict=True)))
    return results


def _told(value: Any) -> jax.Array:
    """A hyper-parameter in a dtype that has all its numbers."""
    value = jnp.asarray(value)
    if value.dtype.name in _READ:
        return value
    with jax.enable_x64(True):
        return value.astype({"bool": "int32", "bfloat16": "float32", "float16": "float32"}.get(value.dtype.name, "float64"))


def _by_rule(*operands: jax.Array, call: Call) -> list[jax.Array]:
    """The same through the rule, leaf by leaf."""
    if call.lanes is not None:
        return list(jax.vmap(functools.partial(_by_rule, call=replace(call, lanes=None)))(*operands))
    shell = call.shell
    told = dict(zip(call.told, operands, strict=False))
    values = {name: told.get(name, value) for name, value in shell.hyper._asdict().items()}
    names = [*(["p"] if call.has_p else []), *shell.kept]
    leaves = [(g, {"p": None, **dict(zip(names, rest, strict=True))}, call.dtype) for g, *rest in call.leaves(operands)]
    stepped = shell.by_rule(values, told["t"], leaves, applied=call.applied)
    return [x for u, state in stepped for x in (u, *(state[field] for field in shell.kept))]


def _shapes(*operands: ShapedArray, call: Call) -> list[ShapedArray]:
    shapes = []
    for g, *rest in call.leaves(operands):
        shapes += [g.update(dtype=np.dtype(call.dtype), weak_type=False), *rest[call.has_p :]]
    return shapes


def _on_cpu(ctx, *operands, call: Call):
    """The library's call; but the rule where XLA has still to part the arrays among devices, or where the program is kept for elsewhere.

    An update takes the memory of its gradient where that is computed in the same program. Where that is given, and large, it is the rule.
    """
    if call.program is None or _is_parted(ctx.module_context) or ctx.module_context.lowering_parameters.for_export:
        return _rule(ctx, *operands, call=call)
    given = [isinstance(leaf[0].owner, mlir.ir.Block) for leaf in call.leaves(operands)]
    if call.large and any(given) and not call.applied:
        return _rule(ctx, *operands, call=call)
    _register()
    shell, program = call.shell, call.program
    hyper = shell.hyper._asdict()
    order = [list(shell.kept).index(field) for field in program.fields]
    first, width = len(call.told), 1 + len(order)

    def arranged(leaf, count):  # fields in the program's order
        return [*leaf[:count], *(leaf[count + i] for i in order)]

    taken = [*operands[:first], *(x for leaf in call.leaves(operands) for x in arranged(leaf, 1 + call.has_p))]
    avals_in = [*ctx.avals_in[:first], *(x for leaf in call.leaves(ctx.avals_in) for x in arranged(leaf, 1 + call.has_p))]
    outs = [ctx.avals_out[i : i + width] for i in range(0, len(ctx.avals_out), width)]
    avals_out = [x for leaf in outs for x in arranged(leaf, 1)]
    g_dtype = call.leaves(ctx.avals_in)[0][0].dtype
    aliases = {}
    for i in range(len(outs)):
        at, to = first + i * call.each, i * width
        aliases |= {at + 1 + call.has_p + f: to + 1 + f for f in range(len(order))}
        if call.applied:
            aliases[at + 1] = to
        elif not given[i] and g_dtype == np.dtype(call.dtype):
            aliases[at] = to
    kinds = [shell.state_dtype(np.zeros((), g_dtype)).name, call.dtype, g_dtype.name]
    kinds += [x.dtype.name for x in avals_out[1:width]]
    names = list(hyper)
    results = jax.ffi.ffi_lowering(_TARGET, operand_output_aliases=aliases)(
        ctx.replace(avals_in=avals_in, avals_out=avals_out),
        *taken,
        program=program.name,
        known=np.array([*(0.0 if name in call.told else float(value) for name, value in hyper.items()), 0.0], np.float64),
        places=np.array([len(hyper) if name == "t" else names.index(name) for name in call.told], np.int64),
        kinds=np.array([library.KINDS[kind] for kind in kinds], np.int64),
        has_p=call.has_p,
        applied=call.applied,
        lanes=np.int64(call.lanes or 1),
    )
    back = [0, *(1 + order.index(i) for i in range(len(order)))]
    return [results[i + j] for i in range(0, len(results), width) for j in back]


def _is_parted(context: Any) -> bool:
    """Whether the program is for several devices. (What `shard_map` makes of one comes here as the rule: `takes`.)"""
    return getattr(context.axis_context, "num_devices", None) != 1


@functools.cache
def _register() -> None:
    jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(library.available().one_pass_update), platform="cpu")


def _jvp(operands, tangents, call: Call):
    """The values as they are, and the derivatives of the rule."""
    moved = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]

    def by_rule(*some):
        every = list(operands)
        for i, x in zip(moved, some, strict=True):
            every[i] = x
        return _by_rule(*every, call=call)

    _, derivatives = jax.jvp(by_rule, [operands[i] for i in moved], [tangents[i] for i in moved])
    return _step.bind(*operands, call=call), derivatives


def _batched(operands, axes, *, call: Call):
    """Every operand with the batch in front. Leaves alone are longer leaves; with hyper-parameters a lane is a step of its own."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    some_told = any(axis is not None for axis in axes[: len(call.told)])

    def in_front(x, axis):
        return jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)

    if call.lanes is not None:
        every = [in_front(x, axis) for x, axis in zip(operands, axes, strict=True)]
        merged = [x.reshape(size * call.lanes, *x.shape[2:]) for x in every]
        flat = _step.bind(*merged, call=replace(call, lanes=size * call.lanes))
        return [x.reshape(size, call.lanes, *x.shape[1:]) for x in flat], [0] * len(flat)
    if some_told:
        every = [in_front(x, axis) for x, axis in zip(operands, axes, strict=True)]
        flat = _step.bind(*every, call=replace(call, lanes=size))
        return flat, [0] * len(flat)
    every, out_axes = list(operands[: len(call.told)]), []
    for leaf, own_axes in zip(call.leaves(operands), call.leaves(axes), strict=True):
        batched = any(axis is not None for axis in own_axes)
        every += [in_front(x, axis) if batched else x for x, axis in zip(leaf, own_axes, strict=True)]
        out_axes += [0 if batched else None] * (1 + len(call.shell.kept))
    return _step.bind(*every, call=call), out_axes


@functools.partial(jax.jit, static_argnums=0)
def _alone(call: Call, *operands):
    """Outside of a jit: in one of its own."""
    return _step.bind(*operands, call=call)


def _impl(*operands, call: Call):
    without_jit = jax.config.jax_disable_jit  # pyright: ignore[reportAttributeAccessIssue]
    return _by_rule(*operands, call=call) if without_jit else _alone(call, *operands)


_step = Primitive("optimizer_step")
_step.multiple_results = True
_step.def_impl(_impl)
_step.def_abstract_eval(_shapes)
batching.primitive_batchers[_step] = _batched
ad.primitive_jvps[_step] = _jvp
_rule = mlir.lower_fun(_by_rule, multiple_results=True)
mlir.register_lowering(_step, _rule)
mlir.register_lowering(_step, _on_cpu, platform="cpu")
