"""A training run's JAX side: an `nnx.Module` and an `nnx.Optimizer`.  Mirror: in_torch.py"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx

from ..models import in_flax, weights


def cross_entropy(logits, targets):
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def mean_squared_error(predictions, targets):
    return jnp.square(predictions - targets).mean()


class Trainer:
    """A model, its loss, and an optimizer from `jaxopt_impl`.

    Args:
        model, arguments: the name of a class in `models.in_flax`, and what it is made with.
        loss: the name of a function above.
        optimizer: an optax transform.
        start: the parameters to begin with, by name.
    """

    name = "jax"

    def __init__(self, model: str, arguments: dict, loss: str, optimizer: optax.GradientTransformation, start: Mapping[str, np.ndarray]):
        self.model = getattr(in_flax, model)(**arguments, rngs=nnx.Rngs(0))
        weights.into_flax(self.model, start)
        self.optimizer = nnx.Optimizer(self.model, optimizer, wrt=nnx.Param)
        compute_loss = {"cross_entropy": cross_entropy, "mean_squared_error": mean_squared_error}[loss]

        def forward(model, inputs, targets):
            predictions = model(inputs)
            return compute_loss(predictions, targets), predictions

        def step(model, optimizer, inputs, targets):
            (loss, _), gradients = nnx.value_and_grad(forward, has_aux=True)(model, inputs, targets)
            optimizer.update(model, gradients)
            return loss

        def apply(model, optimizer, gradients):
            optimizer.update(model, gradients)

        self._forward, self._step, self._apply = nnx.jit(forward), nnx.jit(step), nnx.jit(apply)

    def apply(self, gradients: Mapping[str, np.ndarray]) -> None:
        """Step with gradients from elsewhere."""
        state = nnx.state(self.model, nnx.Param)
        nnx.replace_by_pure_dict(state, jax.tree.map(jnp.array, weights.nested(gradients)))
        self._apply(self.model, self.optimizer, state)

    def step(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """Step with the gradient of a batch; its loss before."""
        return float(self._step(self.model, self.optimizer, inputs, targets))

    def evaluate(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
        """The loss, and what the model predicts."""
        loss, predictions = self._forward(self.model, inputs, targets)
        return float(loss), np.asarray(predictions)

    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters and optimizer state, by field and parameter."""
        params = weights.from_flax(self.model)
        return {**{f"params.{name}": array for name, array in params.items()}, **dict(_by_field(self._state(), params))}

    def _state(self) -> dict[str, np.ndarray]:
        """The optimizer's state by dotted path."""
        return weights.names(nnx.to_pure_dict(nnx.state(self.optimizer))["opt_state"])

    def save(self, folder: Path) -> None:
        """Write jax/, an Orbax checkpoint: {"model": {name: array}, "optimizer": {"step": count, field: {name: array}}}.

        A recipe's state is deeper: {"optimizer": {"step": count, dotted path: array}}.
        """
        state = nnx.to_pure_dict(nnx.state(self.optimizer))
        if "step" in state["opt_state"]:
            fields = state["opt_state"].items()
            optimizer = {field: weights.names(value) if isinstance(value, dict) else np.asarray(value) for field, value in fields}
        else:
            optimizer = {"step": np.asarray(state["step"]), **self._state()}
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save((folder / "jax").absolute(), {"model": weights.from_flax(self.model), "optimizer": optimizer})

    def load(self, folder: Path) -> None:
        with ocp.PyTreeCheckpointer() as checkpointer:
            saved = checkpointer.restore((folder / "jax").absolute())
        weights.into_flax(self.model, saved["model"])
        optimizer = saved["optimizer"]
        if any("." in name for name in optimizer):
            opt_state = weights.nested({path: array for path, array in optimizer.items() if path != "step"})
        else:
            opt_state = {field: weights.nested(value) if isinstance(value, dict) else value for field, value in optimizer.items()}
        state = nnx.state(self.optimizer)
        tree = {"opt_state": opt_state, "step": np.asarray(optimizer["step"], np.uint32)}
        nnx.replace_by_pure_dict(state, jax.tree.map(jnp.array, tree))
        nnx.update(self.optimizer, state)


def _by_field(state: Mapping[str, np.ndarray], names: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Of each array the name that torch's side has for it: field and parameter, or the field alone of one that is of no parameter."""
    for path, array in state.items():
        name = next((name for name in names if path.endswith(f".{name}")), "")
        field = path.removesuffix(f".{name}").rpartition(".")[2]
        yield f"{field}.{name}".rstrip("."), array
