"""A run that began in PyTorch goes on in JAX: weights, Adam's moments and its step, every bit of them."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from optax import apply_updates

from optparity import interop


def batch(step):
    rng = np.random.default_rng(step)
    x = rng.standard_normal((256, 8), np.float32)
    return x, np.sin(x[:, :1])


# 100 steps in PyTorch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for step in range(100):
    x, y = map(torch.from_numpy, batch(step))
    optimizer.zero_grad()
    loss = (model(x) - y).square().mean()
    loss.backward()
    optimizer.step()
print(f"step  99 in PyTorch: loss {loss.item():.6f}")


# The same model in Flax, with other names
class Model(nnx.Module):
    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(8, 64, rngs=rngs), nnx.Linear(64, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.tanh(self.first(x)))


def name(path):  # "first.kernel" -> "0.weight"
    return path.replace("first", "0").replace("last", "2").replace("kernel", "weight")


graph, start = nnx.split(Model(nnx.Rngs(0)), nnx.Param)
matching = interop.Matching(start, model, names=name)
print(matching)
params = interop.weights_from_torch(model, start, matching=matching)
tx, state, groups = interop.from_torch(optimizer, params, matching=matching)


@jax.jit
def train_step(params, state, x, y):
    loss, gradients = jax.value_and_grad(lambda params: jnp.square(nnx.merge(graph, params)(x) - y).mean())(params)
    updates, state = tx.update(gradients, state, params)
    return apply_updates(params, updates), state, loss


# and on from step 100
back = interop.to_torch_state_dict(state, groups)["state"]
for step in range(100, 200):
    params, state, loss = train_step(params, state, *batch(step))
    if step in (100, 199):
        print(f"step {step} in JAX: loss {loss:.6f}")
same = [torch.equal(back[i][field], value) for i, own in optimizer.state_dict()["state"].items() for field, value in own.items()]
print("same bits after there and back:", all(same))
