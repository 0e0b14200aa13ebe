"""A training script in JAX, with the lines that record it: `python -m parity_tests.traces.train_jax FOLDER`."""

import sys

import jax
import jax.numpy as jnp
import optax

import jaxopt_impl
from optparity import Recorder, recorded

from .digits_run import MAX_NORM, STEPS, batch, rates, start


def main(folder: str) -> None:
    recorder = Recorder(folder, tensors="all")
    schedule = jnp.asarray(rates())
    tx = recorded(jaxopt_impl.adam(lambda count: schedule[count]), recorder, clip=jaxopt_impl.clip_by_global_norm(MAX_NORM))

    def loss_of(params, images, labels):
        hidden = jnp.tanh(images @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        logits = hidden @ params["output"]["kernel"] + params["output"]["bias"]
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def train_step(params, state, images, labels, lr):
        loss, gradients = jax.value_and_grad(loss_of)(params, images, labels)
        updates, state = tx.update(gradients, state, params, loss=loss, batch=(images, labels), lr=lr)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, start())
    state = tx.init(params)
    for step in range(1, STEPS + 1):
        params, state = train_step(params, state, *batch(step), rates()[step - 1])
    recorder.finish(params)


if __name__ == "__main__":
    main(*sys.argv[1:])
