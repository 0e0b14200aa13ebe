"""The memory of a training step as XLA compiles it."""

from math import prod

import jax
import jax.numpy as jnp
import optax
import pytest

from optparity.accounting import (
    Cruncher,
    Setup,
    estimate,
    jax_memory,
)
from optparity.registry import OPTIMIZERS

from .models import CRUNCHERS, GPTS, cruncher_in_jax, gpt_in_jax, transformer


def step_in_jax(optimizer, loss):
    tx = OPTIMIZERS[optimizer].jax(0.1)

    def step(params, opt_state, *data):
        updates, opt_state = tx.update(jax.grad(loss)(params, *data), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return tx, step


STEPS = [*((Cruncher(dim, layers), batch, None) for batch, dim, layers in CRUNCHERS[:5]), (transformer(*GPTS[0][0]), *GPTS[0][1])]


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize(("config", "batch", "seq"), STEPS)
def test_memory_of_a_compiled_step(config, batch, seq, donate):
    """Arguments, outputs and aliases: parameters, state and data, to the byte."""
    if isinstance(config, Cruncher):
        optimizer, (params, loss) = "momentum", cruncher_in_jax(config.dim, config.num_layers)
        data = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((batch, config.dim), (batch,))]
    else:
        optimizer, (params, loss) = "adam", gpt_in_jax(*GPTS[0][0])
        data = [jax.ShapeDtypeStruct((batch, seq), jnp.int32)] * 2
    tx, step = step_in_jax(optimizer, loss)
    opt_state = jax.eval_shape(tx.init, params)
    with jax.numpy_dtype_promotion("standard"):  # as users have it; optax promotes
        compiled = jax_memory(step, params, opt_state, *data, donate=(0, 1) if donate else ())
    executed = estimate(config, batch, seq, Setup(optimizer, framework="jax", donate=donate)).memory[1]
    held = executed.totals["parameters"] + executed.totals["optimizer_state"]
    arrays = len(jax.tree.leaves((params, opt_state)))
    assert compiled["argument"] == held + sum(4 * prod(of.shape) for of in data)
    assert compiled["output"] == held + 8 * arrays
    assert compiled["alias"] == (held if donate else 0)
    both = held if donate else 2 * held  # donated, the outputs take the arguments' place; their table of pointers does not
    assert compiled["peak"] == both + sum(4 * prod(of.shape) for of in data) + 8 * arrays + compiled["temp"]
    assert executed.totals["temporaries"] == (0 if donate else held)
