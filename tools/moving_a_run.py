"""A run on the digits, carried from PyTorch to JAX on the way: a small Flax model and its torch twin, and the picture of their losses.

`python -m tools.moving_a_run docs/moving_a_run.svg` draws it.
"""

import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import optax
import torch
from flax import nnx

from optparity import interop
from optparity._figures import drawing
from optparity.datasets import digits

STYLE = Path(__file__).with_name("pictures.mplstyle")
HIDDEN = 32
TWIN = {"names": lambda path: path.replace("kernel", "weight"), "layouts": lambda path: (1, 0) if path.endswith("kernel") else None}
STYLES = {"PyTorch": ("tab:orange", "-"), "JAX": ("tab:blue", "--"), "JAX, moments dropped": ("tab:red", ":")}


class InFlax(nnx.Module):
    """A classifier of one hidden layer, with Flax's own layers: kernels (in, out)."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, HIDDEN, rngs=rngs)
        self.output = nnx.Linear(HIDDEN, 10, rngs=rngs)

    def __call__(self, x):
        return self.output(nnx.tanh(self.hidden(x)))


def in_torch() -> torch.nn.Module:
    """Its twin, with torch's own layers: weights (out, in)."""
    torch.manual_seed(0)
    layers = {"hidden": torch.nn.Linear(64, HIDDEN), "tanh": torch.nn.Tanh(), "output": torch.nn.Linear(HIDDEN, 10)}
    return torch.nn.Sequential(OrderedDict(layers))


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = digits().batch(step, 64, 0)
    return inputs.astype(np.float32), targets


def torch_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> float:
    """The loss before it."""
    inputs, targets = map(torch.from_numpy, batch(step))
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(inputs), targets)
    loss.backward()
    optimizer.step()
    return loss.item()


def jax_losses(graph, params, tx: optax.GradientTransformation, state, steps: Sequence[int]) -> list[float]:
    """The loss before each step, with gradients of its own."""

    @jax.jit
    def train_step(params, state, inputs, targets):
        def loss(params):
            return optax.losses.softmax_cross_entropy_with_integer_labels(nnx.merge(graph, params)(inputs), targets).mean()

        loss, gradients = jax.value_and_grad(loss)(params)
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for step in steps:
        params, state, loss = train_step(params, state, *batch(step))
        losses.append(float(loss))
    return losses


def curves(carried_after: int, steps: int) -> dict[str, list[float]]:
    """The losses of a run with torch.optim.Adam, and from where it is carried across those of JAX: with its moments and without."""
    model = in_torch()
    optimizer = torch.optim.Adam(model.named_parameters(), lr=0.03)
    losses = [torch_step(model, optimizer, step) for step in range(1, carried_after + 1)]
    graph, start = nnx.split(InFlax(nnx.Rngs(0)), nnx.Param)
    params = interop.weights_from_torch(dict(model.named_parameters()), start, **TWIN)
    tx, state, _ = interop.from_torch(optimizer, params, **TWIN)
    rest = range(carried_after + 1, steps + 1)
    return {
        "PyTorch": losses + [torch_step(model, optimizer, step) for step in rest],
        "JAX": losses + jax_losses(graph, params, tx, state, rest),
        "JAX, moments dropped": losses + jax_losses(graph, params, tx, tx.init(params), rest),
    }


def draw(losses: Mapping[str, Sequence[float]], carried_after: int, path: Path) -> None:
    """Draw a curve for each side over the steps, and where the run was carried across."""
    with drawing(path, style=STYLE) as (_, axes):
        axis = axes[0, 0]
        for side, values in losses.items():
            color, dash = STYLES[side]
            axis.plot(range(1, len(values) + 1), values, color=color, linestyle=dash, label=f"{side}: {values[-1]:.4f} at the end")
        axis.axvline(carried_after, color="gray", linewidth=0.8, label=f"carried across after step {carried_after}")
        axis.set(xlabel="step", ylabel="loss of the batch, nats", yscale="log")
        axis.legend(loc="lower left")
        axis.grid()


if __name__ == "__main__":
    draw(curves(100, 160), 100, Path(sys.argv[1]))
