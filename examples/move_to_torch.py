"""A run that began in JAX goes on in PyTorch: weights, Adam's moments and its step, every bit of them."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from optax import apply_updates

import torch_ref
from jaxopt_impl import adamw
from optparity import interop


def batch(step):
    rng = np.random.default_rng(step)
    x = rng.standard_normal((256, 8), np.float32)
    return x, np.sin(x[:, :1])


# 100 steps in JAX
class Model(nnx.Module):
    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(8, 64, rngs=rngs), nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.tanh(self.first(x)))


graph, params = nnx.split(Model(nnx.Rngs(0)), nnx.Param)
tx = adamw(1e-2)
state = tx.init(params)


@jax.jit
def train_step(params, state, x, y):
    loss, gradients = jax.value_and_grad(lambda params: jnp.square(nnx.merge(graph, params)(x) - y).mean())(params)
    updates, state = tx.update(gradients, state, params)
    return apply_updates(params, updates), state, loss


for step in range(100):
    params, state, loss = train_step(params, state, *batch(step))
print(f"step  99 in JAX: loss {loss:.6f}")

# The same model in PyTorch, with other names
model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))


def name(path):  # "first.kernel" -> "0.weight"
    return path.replace("first", "0").replace("last", "2").replace("kernel", "weight")


matching = interop.Matching(params, model, names=name)
model.load_state_dict(interop.weights_to_torch(params, matching=matching))
groups = interop.describe(params, ("adamw", {"learning_rate": 1e-2}), matching=matching)
optimizer = torch_ref.AdamW(model.parameters())  # torch.optim.AdamW loads it as well
optimizer.load_state_dict(interop.to_torch_state_dict(state, groups))

# and on from step 100
again = interop.from_torch(optimizer, params, matching=matching).state
for step in range(100, 200):
    x, y = map(torch.from_numpy, batch(step))
    optimizer.zero_grad()
    loss = (model(x) - y).square().mean()
    loss.backward()
    optimizer.step()
    if step in (100, 199):
        print(f"step {step} in PyTorch: loss {loss.item():.6f}")
print("same bits after there and back:", all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (again, state)), strict=True)))
