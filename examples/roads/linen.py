"""A run in a TrainState of Linen goes on in PyTorch and comes back: AdamW with a decay mask, every bit of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import linen as nn
from flax.training.train_state import TrainState

import torch_ref
from jaxopt_impl import adamw
from optparity import interop


def batch(step):
    x = np.random.default_rng(step).standard_normal((256, 8), np.float32)
    return x, np.sin(x[:, :1])


# 100 steps in JAX
class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(32)(x))
        x = nn.tanh(nn.Dense(32)(x))
        return nn.Dense(1)(x)


def decayed(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


model, schedule = Model(), optax.cosine_decay_schedule(1e-2, 300)
params = model.init(jax.random.key(0), batch(0)[0])["params"]
tx = optax.chain(optax.clip_by_global_norm(1.0), adamw(schedule, weight_decay=0.1, mask=decayed))
train_state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)


@jax.jit
def train_step(train_state, x, y):
    loss, gradients = jax.value_and_grad(lambda params: jnp.square(model.apply({"params": params}, x) - y).mean())(train_state.params)
    return train_state.apply_gradients(grads=gradients), loss


for step in range(100):
    train_state, loss = train_step(train_state, *batch(step))
print(f"step  99 in JAX: loss {loss:.6f}")

# The same model in PyTorch, where the layers have the numbers 0, 2 and 4
net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))


def name(path):  # "Dense_1.kernel" -> "2.weight"
    layer, kind = path.split(".")
    return f"{2 * int(layer.removeprefix('Dense_'))}.{kind.replace('kernel', 'weight')}"


matching = interop.Matching(train_state.params, net, names=name)
print(matching)
net.load_state_dict(interop.weights_to_torch(train_state.params, matching=matching))
described = ("adamw", {"learning_rate": 1e-2, "weight_decay": 0.1, "mask": decayed})
groups = interop.describe(train_state.params, described, matching=matching)
own = dict(enumerate(net.parameters()))
optimizer = torch_ref.AdamW([{"params": [own[i] for i in (0, 2, 4)]}, {"params": [own[i] for i in (1, 3, 5)]}])  # decayed or not
optimizer.load_state_dict(interop.to_torch_state_dict(train_state, groups, learning_rate=schedule))


def back():  # a TrainState with the weights and moments that PyTorch has now
    params = interop.weights_from_torch(net, train_state.params, matching=matching)
    imported = interop.from_torch(optimizer, params, matching=matching, learning_rate=schedule)
    state = interop.with_mask(imported, params, learning_rate=schedule).state
    return interop.to_flax(state, TrainState.create(apply_fn=model.apply, params=params, tx=tx))


same = [(a == b).all() for a, b in zip(*map(jax.tree.leaves, (back(), train_state)), strict=True)]
print(f"same bits after there and back: {all(same)}, of {len(same)} arrays")

# On in PyTorch from step 100 to 199, and back in JAX from there
for step in range(100, 200):
    for group in optimizer.param_groups:
        group["lr"] = float(schedule(step))
    x, y = map(torch.from_numpy, batch(step))
    optimizer.zero_grad()
    loss = (net(x) - y).square().mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    if step in (100, 199):
        print(f"step {step} in PyTorch: loss {loss.item():.6f}")
train_state = back()
print(f"step {train_state.step} in JAX: loss {train_step(train_state, *batch(200))[1]:.6f}")
