"""One training step of the article's model in PyTorch, and what is in memory before and after it.

The JAX twin is article_jax.py: the same steps in the same order.
"""

import torch
from torch.nn import functional as F

from optparity.models.in_torch import Cruncher
from torch_ref import AdaGrad


def shapes(state_dict):
    return {index: {name: tuple(tensor.shape) for name, tensor in state.items()} for index, state in state_dict["state"].items()}


B, D, num_layers = 2, 4, 2

model = Cruncher(dim=D, num_layers=num_layers)
optimizer = AdaGrad(model.parameters(), lr=0.01)
print("parameters", {name: tuple(p.shape) for name, p in model.state_dict().items()})
print("state before", shapes(optimizer.state_dict()))

x, y = torch.randn(B, D), torch.tensor([4.0, 5.0])
before = {name: p.clone() for name, p in model.state_dict().items()}

loss = F.mse_loss(input=model(x), target=y)
loss.backward()  # each p.grad is there now
optimizer.step()

print("state after", shapes(optimizer.state_dict()))
for name, p in model.state_dict().items():
    print(f"{name} moved by {(p - before[name]).abs().max():.6f}")

optimizer.zero_grad(set_to_none=True)  # gives the gradients' memory back
assert all(p.grad is None for p in model.parameters())
