"""A run of Lightning goes on in JAX and comes back: a .ckpt, every bit of the weights and of Adam."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import lightning
import numpy as np
import optax
import torch
from flax import nnx

from optparity import interop

rng = np.random.default_rng(0)
x = rng.standard_normal((640, 8), np.float32)
y = np.sin(x[:, :1])
batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*map(torch.from_numpy, (x, y))), batch_size=64)
folder = Path(tempfile.mkdtemp())


class Module(lightning.LightningModule):
    def __init__(self, width):
        super().__init__()
        self.save_hyperparameters()
        self.first, self.second, self.last = torch.nn.Linear(8, width), torch.nn.Linear(width, width), torch.nn.Linear(width, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))

    def training_step(self, batch, index):
        x, y = batch
        loss = (self(x) - y).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def trainer(max_epochs):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return lightning.Trainer(accelerator="cpu", max_epochs=max_epochs, default_root_dir=folder, **quiet)


# What Lightning does, 5 epochs of 10 steps
lightning.seed_everything(0, verbose=False)
first = trainer(max_epochs=5)
first.fit(Module(width=32), batches)
first.save_checkpoint(folder / "last.ckpt")

# Read its checkpoint, and make the optimizer that it holds the state of
checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
model = Module.load_from_checkpoint(folder / "last.ckpt")
optimizer = model.configure_optimizers()
optimizer.load_state_dict(checkpoint["optimizer_states"][0])


# The same model in Flax, and the move
class Model(nnx.Module):
    def __init__(self, width, rngs):
        self.first, self.second = nnx.Linear(8, width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)
        self.last = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.tanh(self.second(nnx.tanh(self.first(x)))))


graph, start = nnx.split(Model(**checkpoint["hyper_parameters"], rngs=nnx.Rngs(0)), nnx.Param)
matching = interop.Matching(start, model)
print(matching)
params = interop.weights_from_torch(model, start, matching=matching)
imported = interop.from_torch(optimizer, params, matching=matching)
tx, state, groups = imported


@jax.jit
def train_step(params, state, x, y):
    loss, gradients = jax.value_and_grad(lambda params: jnp.square(nnx.merge(graph, params)(x) - y).mean())(params)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, loss


def back(params, state):  # the checkpoint with these weights and moments
    weights, moments = interop.weights_to_torch(params, matching=matching), interop.to_torch_state_dict(state, groups)
    return {**checkpoint, "state_dict": {**checkpoint["state_dict"], **weights}, "optimizer_states": [moments]}


returned = back(params, state)
same = [torch.equal(weight, returned["state_dict"][name]) for name, weight in checkpoint["state_dict"].items()]
for index, moments in checkpoint["optimizer_states"][0]["state"].items():
    same += [torch.equal(moments[name], returned["optimizer_states"][0]["state"][index][name]) for name in moments]
print(f"same bits after there and back: {all(same)}, of {len(same)} tensors")

# On in JAX from step 50, and back: Lightning goes on from there
for step in range(50, 100):
    rows = slice(step % 10 * 64, step % 10 * 64 + 64)
    params, state, loss = train_step(params, state, x[rows], y[rows])
    if step in (50, 99):
        print(f"step {step} in JAX: loss {loss:.6f}")
torch.save(back(params, state), folder / "last.ckpt")
second = trainer(max_epochs=6)
second.fit(Module(width=32), batches, ckpt_path=folder / "last.ckpt")
print(f"an epoch later in PyTorch: loss {second.callback_metrics['loss'].item():.6f}")
