"""Clips to compile: a donated step that does nothing else, ours and optax's."""

import jax
import optax

import jaxopt_impl
from optparity.accelerators.programs import Built, Program
from optparity.parity.contexts import train_step_of

LARGE = (32_000_000,)
_CLIPS = {
    "torch": lambda: jaxopt_impl.clip_by_global_norm(1.0),
    "optax": lambda: jaxopt_impl.clip_by_global_norm(1.0, form="optax"),
    "value": lambda: jaxopt_impl.clip_by_value(1.0),
    "optax's own": lambda: optax.clip_by_global_norm(1.0),
}


def step(of: tuple[str, tuple[int, ...]], dtype: str) -> Built:
    """The clip, and the addition of what it leaves."""
    name, shape = of
    tx, params = _CLIPS[name](), jax.ShapeDtypeStruct(shape, dtype)
    return Built(train_step_of(tx), (params, jax.eval_shape(tx.init, params), params), (0, 1))


def program(name: str, dtype: str, shape: tuple[int, ...] = (8, 257), *, sharded: bool = False) -> Program:
    return Program(f"{name} | {dtype} | {shape}{' | sharded' * sharded}", step, (name, shape), dtype, sharded=sharded)


SMALL = tuple(program(name, dtype) for name in ("torch", "optax", "value") for dtype in ("float32", "bfloat16", "float16"))
SHARDED = tuple(program(name, "float32", sharded=True) for name in ("torch", "optax"))
COMPARED = (program("torch", "float32", LARGE), program("optax's own", "float32", LARGE))
