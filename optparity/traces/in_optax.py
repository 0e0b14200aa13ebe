"""An optax run, recorded by a wrapper around its transform: inside jit by a callback in the order of the steps."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import io_callback

from jaxopt_impl.packing import Packed, pack, unpack

from .recorder import Recorder
from .summaries import PERIOD


def recorded(
    tx: optax.GradientTransformation,
    folder: str | os.PathLike | Recorder,
    *,
    clip: optax.GradientTransformation | None = None,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """A transform that does what `tx` does, bit for bit, and records it.

    Its state is that of `tx`. Recorded are the gradients that `update` gets, the state after it, and the parameters: those after step t
    are what `update` gets at step t + 1, so a step is written when the next one begins. The last one gets its parameters by
    `Recorder.finish(params)`, or has none. `update` takes what else belongs to the step: `update(g, state, params, loss=loss,
    batch=batch, lr=lr)`; these go into the trace, and other extra arguments to `tx`.

    It works eagerly, under jit, and in scan. Not under vmap, which JAX refuses ("Cannot `vmap` ordered-effects"), nor under pmap.

    Args:
        tx: any optax transform.
        folder: where the trace goes, or a `Recorder`.
        clip: what changes the gradients first, as optax.clip_by_global_norm(1.0): the whole does what chain(clip, tx) does and has its
            state; what leaves `clip` is recorded as clipped.
        options: of `Recorder`: tensors, every, matching, rank, resume.

    Raises: ValueError as `Recorder`; in `update`, where it gets no params.
    """
    recorder = folder if isinstance(folder, Recorder) else Recorder(folder, **options)
    recorder.late = True
    inner = optax.with_extra_args_support(tx)
    clipping = None if clip is None else optax.with_extra_args_support(clip)

    def init(params):
        return inner.init(params) if clipping is None else (clipping.init(params), inner.init(params))

    def update(updates, state, params=None, *, loss=None, batch=None, lr=None, **extra):
        if params is None:
            raise ValueError("recorded: update needs params: they are recorded.")
        seen = {"gradients": updates, "loss": loss, "batch": batch, "lr": lr}
        if clipping is None:
            updates, state = inner.update(updates, state, params, **extra)
        else:
            updates, clip_state = clipping.update(updates, state[0], params, **extra)
            seen["clipped"] = updates
            updates, tx_state = inner.update(updates, state[1], params, **extra)
            state = (clip_state, tx_state)
        # What is recorded is what is returned: behind the barrier XLA cannot compute it twice, with other bits. (Not seen without it.)
        params, seen, state = jax.lax.optimization_barrier((params, seen, state))
        # Small leaves go together: a callback takes time for each array.
        told = jax.tree.map(_bits_of_keys, {"params": params, "state": state, **seen})
        io_callback(_Step(recorder), None, pack(told, below=PERIOD), ordered=True)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)


def _bits_of_keys(x: Any) -> Any:
    return jax.random.key_data(x) if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


class _Step:
    """What is called at each step: the parameters end the step before, and the rest begins this one."""

    def __init__(self, recorder: Recorder):
        self._recorder = recorder

    def __call__(self, packed: Packed) -> None:
        seen = unpack(jax.tree.map(np.asarray, packed))
        self._recorder.arrive(seen.pop("params"))
        self._recorder.note(**seen)
