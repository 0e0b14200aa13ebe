"""A run of nanoGPT goes on in JAX and comes back: its ckpt.pt, every bit of the weights and of AdamW's two groups."""

import tempfile
from pathlib import Path

import flax_gpt
import jax
import numpy as np
import optax
import torch
from flax import nnx
from nanogpt_model import GPT, GPTConfig

from optparity import interop


def batch(step):  # rows that count on by 1, 2 or 3
    rng = np.random.default_rng(step)
    tokens = (rng.integers(64, size=(8, 1)) + rng.integers(1, 4, (8, 1)) * np.arange(17)) % 64
    return tokens[:, :-1], tokens[:, 1:]


# What nanoGPT's train.py does, 50 steps of it
torch.manual_seed(0)
path = Path(tempfile.mkdtemp()) / "ckpt.pt"
schedule = optax.warmup_cosine_decay_schedule(0, 1e-2, warmup_steps=10, decay_steps=100, end_value=1e-3)
config = {"weight_decay": 1e-1, "learning_rate": 1e-2, "betas": (0.9, 0.95)}
model_args = {"block_size": 16, "vocab_size": 64, "n_layer": 2, "n_head": 2, "n_embd": 32}
model = GPT(GPTConfig(**model_args))
optimizer = model.configure_optimizers(**config)
for step in range(50):
    for group in optimizer.param_groups:
        group["lr"] = float(schedule(step))
    _, loss = model(*map(torch.from_numpy, batch(step)))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
print(f"step 49 in PyTorch: loss {loss.item():.4f}")
written = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "model_args": model_args, "iter_num": 50, "config": config}
torch.save(written, path)

# Read it again, as train.py does to resume
checkpoint = torch.load(path, weights_only=True)
model = GPT(GPTConfig(**checkpoint["model_args"]))
model.load_state_dict(checkpoint["model"])
optimizer = model.configure_optimizers(**checkpoint["config"])
optimizer.load_state_dict(checkpoint["optimizer"])

# Move to JAX: one adamw with a mask, in the place of two groups
graph, start = nnx.split(flax_gpt.GPT(**checkpoint["model_args"], rngs=nnx.Rngs(0)), nnx.Param)
matching = interop.Matching(start, model)
print(*str(matching).splitlines()[:4], sep="\n")
params = interop.weights_from_torch(model, start, matching=matching)
imported = interop.from_torch(optimizer, params, matching=matching, learning_rate=schedule)
imported = interop.with_mask(imported, params, learning_rate=schedule)
tx = optax.chain(optax.clip_by_global_norm(1.0), imported.tx)
state = interop.wrapped(imported.state, tx.init(params))


@jax.jit
def train_step(params, state, tokens, targets):
    def loss_of(params):
        return optax.softmax_cross_entropy_with_integer_labels(nnx.merge(graph, params)(tokens), targets).mean()

    loss, gradients = jax.value_and_grad(loss_of)(params)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, loss


def back(params, state, step):  # a ckpt.pt with these weights and moments
    model.load_state_dict(interop.weights_to_torch(params, matching=matching), strict=False)  # lm_head.weight is wte's
    moments = interop.to_torch_state_dict(state, imported.groups, learning_rate=schedule)
    return {**checkpoint, "model": model.state_dict(), "optimizer": moments, "iter_num": step}


returned = back(params, state, 50)
same = [torch.equal(weight, written["model"][name]) for name, weight in returned["model"].items()]
for index, moments in written["optimizer"]["state"].items():
    same += [torch.equal(moments[name], returned["optimizer"]["state"][index][name]) for name in moments]
print(f"same bits after there and back: {all(same)}, of {len(same)} tensors")

# On in JAX from step 50, and back for nanoGPT's --init_from=resume
for step in range(50, 100):
    params, state, loss = train_step(params, state, *batch(step))
    if step in (50, 99):
        print(f"step {step} in JAX: loss {loss:.4f}")
torch.save(back(params, state, 100), path)
with torch.no_grad():
    print(f"step 100 in PyTorch: loss {model(*map(torch.from_numpy, batch(100)))[1].item():.4f}")
