"""A PyTorch run goes on in an nnx.Optimizer and comes back: convolution, BatchNorm and a flattened image, every bit of them."""

import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from optparity import interop


def batch(step):  # 6 x 6 images, and which half of them is brighter
    x = np.random.default_rng(step).standard_normal((32, 1, 6, 6), np.float32)
    return x, (x[..., :3].sum((1, 2, 3)) > x[..., 3:].sum((1, 2, 3))).astype(np.int64)


# 50 steps in PyTorch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(8 * 4 * 4, 2)

    def forward(self, x):
        return self.out(torch.relu(self.norm(self.conv(x))).flatten(1))


torch.manual_seed(0)
net = Net()
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
for step in range(50):
    x, y = map(torch.from_numpy, batch(step))
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
print(f"step 49 in PyTorch: loss {loss.item():.4f}")


# The same model in Flax: images are (height, width, channels) here
class Model(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 8, (3, 3), padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.out = nnx.Linear(4 * 4 * 8, 2, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x.transpose(0, 2, 3, 1))))
        return self.out(x.reshape(len(x), -1))


# PyTorch flattened (channels, height, width), so the rows of out.kernel have another order: (2, 8, 4, 4) became (4, 4, 8, 2)
flattened = [interop.Reshape((2, 128), (2, 8, 4, 4)), (2, 3, 1, 0), interop.Reshape((4, 4, 8, 2), (128, 2))]
model = Model(nnx.Rngs(0))
params, statistics = nnx.state(model, nnx.Param), nnx.state(model, nnx.BatchStat)
matching = interop.Matching(params, net, layouts={"out.kernel": flattened})
print("found for conv.kernel: axes", matching.pairs["conv.kernel"].layout)
running = {name: buffer for name, buffer in net.named_buffers() if buffer.is_floating_point()}
nnx.update(model, interop.weights_from_torch(net, params, matching=matching), interop.weights_from_torch(running, statistics))

imported = interop.from_torch(optimizer, nnx.state(model, nnx.Param), matching=matching)
tx = optax.chain(optax.clip_by_global_norm(10.0), imported.tx)  # what else you want: it need not have been in PyTorch
nnx_optimizer = interop.to_flax(imported.state, nnx.Optimizer(model, tx, wrt=nnx.Param))


@nnx.jit
def train_step(model, nnx_optimizer, x, y):
    def loss_of(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    nnx_optimizer.update(model, gradients)
    return loss


def back():  # into the model and the optimizer in PyTorch
    statistics = interop.weights_to_torch(nnx.state(model, nnx.BatchStat), names=lambda path: path.replace(".", ".running_"))
    weights = interop.weights_to_torch(nnx.state(model, nnx.Param), matching=matching)
    net.load_state_dict({**net.state_dict(), **statistics, **weights})
    optimizer.load_state_dict(interop.to_torch_state_dict(nnx_optimizer, imported.groups))


def bits():  # of all that a checkpoint in PyTorch would hold
    return [*net.state_dict().values(), *(value for moments in optimizer.state.values() for value in moments.values())]


before = [tensor.clone() for tensor in bits()]
back()
same = [torch.equal(a, b) for a, b in zip(before, bits(), strict=True)]
print(f"same bits after there and back: {all(same)}, of {len(same)} tensors")

# On in JAX from step 50, and back
for step in range(50, 100):
    loss = train_step(model, nnx_optimizer, *map(jnp.asarray, batch(step)))
    if step in (50, 99):
        print(f"step {step} in JAX: loss {loss:.4f}")
back()
x, y = map(torch.from_numpy, batch(100))
print(f"step 100 in PyTorch: loss {torch.nn.functional.cross_entropy(net(x), y).item():.4f}")
