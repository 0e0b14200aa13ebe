"""One training step of the article's model in JAX with Flax NNX, and what is in memory before and after it.

The PyTorch twin is article.py. Here nothing is freed by hand: gradients live from `nnx.value_and_grad` to the update.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxopt_impl import adagrad
from optparity.models import weights
from optparity.models.in_flax import Cruncher


def shapes(optimizer):
    state = nnx.to_pure_dict(nnx.state(optimizer))["opt_state"]
    return {name: array.shape for name, array in weights.names(state).items()}


B, D, num_layers = 2, 4, 2

model = Cruncher(dim=D, num_layers=num_layers, rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, adagrad(0.01), wrt=nnx.Param)
print("parameters", {name: array.shape for name, array in weights.from_flax(model).items()})
print("state before", shapes(optimizer))

x, y = jax.random.normal(jax.random.key(0), (B, D)), jnp.array([4.0, 5.0])
before = {name: array.copy() for name, array in weights.from_flax(model).items()}


@nnx.jit
def train_step(model, optimizer, x, y):
    loss, gradients = nnx.value_and_grad(lambda model: jnp.square(model(x) - y).mean())(model)
    optimizer.update(model, gradients)
    return loss


loss = train_step(model, optimizer, x, y)

print("state after", shapes(optimizer))
for name, array in weights.from_flax(model).items():
    print(f"{name} moved by {abs(array - before[name]).max():.6f}")
