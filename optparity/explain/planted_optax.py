"""Mistakes that people make with optax: chains in which a part is another one, or stands elsewhere."""

import jax.numpy as jnp
import optax


def adamw(learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    """The right one."""
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(learning_rate))


def decay_first(learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.scale_by_adam(), optax.scale_by_learning_rate(learning_rate))


def decay_last(learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    """Behind the learning rate, so that the sign must be turned, and nothing scales it."""
    return optax.chain(optax.scale_by_adam(), optax.scale_by_learning_rate(learning_rate), optax.add_decayed_weights(-weight_decay))


def microbatches(learning_rate: float, every: int) -> optax.GradientTransformation:
    """The right one: their mean."""
    return optax.MultiSteps(optax.sgd(learning_rate, momentum=0.9), every).gradient_transformation()


def microbatches_summed(learning_rate: float, every: int) -> optax.GradientTransformation:
    return optax.MultiSteps(optax.chain(optax.scale(every), optax.sgd(learning_rate, momentum=0.9)), every).gradient_transformation()


def warmed_up(learning_rate: float, warmup_steps: int) -> optax.GradientTransformation:
    """The right one: no step before the second."""
    return optax.sgd(lambda count: learning_rate * jnp.minimum(count * (1 / warmup_steps), 1.0), momentum=0.9)


def warmed_up_at_once(learning_rate: float, warmup_steps: int) -> optax.GradientTransformation:
    return optax.sgd(lambda count: learning_rate * jnp.minimum((count + 1) * (1 / warmup_steps), 1.0), momentum=0.9)
