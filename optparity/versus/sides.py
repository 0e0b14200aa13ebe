"""One optimizer, of either framework, driven by gradients from outside."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import numpy as np

from ..parity.contexts import CONTEXTS
from .factories import Named, said
from .states import Fields, fields_of_tree

FORMS = ("jit", "train_step", "eager")  # of `CONTEXTS`, how an optax transform may be called here
Optimizer = Any  # a `Named`, an optax transform, or a callable from a list of torch parameters to a torch optimizer


class Side(ABC):
    """An optimizer over parameters that start as copies of a tree.

    Attributes:
        name: what it is called in reports and errors.
    """

    name: str

    @abstractmethod
    def step(self, gradients: Sequence[np.ndarray | None]) -> None:
        """One step, of a gradient for each leaf; None leaves its parameter as it is."""

    @abstractmethod
    def params(self) -> list[np.ndarray]:
        """The parameters now, in the order of the leaves."""

    @abstractmethod
    def state(self) -> Fields:
        """The state now, by name and path of the leaf."""


def is_jax(optimizer: Optimizer) -> bool:
    """Whether it runs in JAX.

    Raises: TypeError for what is no optimizer.
    """
    if isinstance(optimizer, Named):
        return optimizer.framework == "jax"
    if hasattr(optimizer, "init") and hasattr(optimizer, "update"):
        return True
    if callable(optimizer):
        return False
    needed = "a Named, an optax transform, or a callable from parameters to a torch optimizer"
    raise TypeError(f"against: {needed} is needed; got {type(optimizer).__name__}.")


def side(optimizer: Optimizer, name: str, params: Any, paths: list[str], form: str) -> Side:
    """An optimizer at the start of its run.

    Raises: ValueError in one line where it cannot be made.
    """
    return _Jax(optimizer, name, params, paths, form) if is_jax(optimizer) else _Torch(optimizer, name, params, paths)


class _Jax(Side):
    def __init__(self, optimizer: Optimizer, name: str, params: Any, paths: list[str], form: str):
        tx = optimizer.make() if isinstance(optimizer, Named) else optimizer
        context = CONTEXTS[form]
        self.name, self._paths, self._treedef = name, paths, jax.tree.structure(params)
        self._params = context.place(params)
        with failing(f"{name} fails in init"):
            self._state, self._advance = context.init(tx, self._params), context.advance(tx)

    def step(self, gradients: Sequence[np.ndarray | None]) -> None:
        ((self._params, self._state),) = self._advance(self._params, self._state, [self._treedef.unflatten(gradients)])

    def params(self) -> list[np.ndarray]:
        return [np.array(x) for x in jax.tree.leaves(self._params)]

    def state(self) -> Fields:
        return fields_of_tree(self._state, self._paths)


class _Torch(Side):
    def __init__(self, optimizer: Optimizer, name: str, params: Any, paths: list[str]):
        from ..parity.torch_side import TorchSide

        self.name, self._paths = name, paths
        make = optimizer.make if isinstance(optimizer, Named) else optimizer
        with nullcontext() if isinstance(optimizer, Named) else failing(f"{name} cannot be made"):  # a Named says it itself
            self._side = TorchSide(make, jax.tree.leaves(params))

    def step(self, gradients: Sequence[np.ndarray | None]) -> None:
        self._side.step(gradients)

    def params(self) -> list[np.ndarray]:
        return self._side.params()

    def state(self) -> Fields:
        found = self._side.state()
        return {name: {path: x for path, x in zip(self._paths, of_each, strict=True) if x is not None} for name, of_each in found.items()}


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Within it, whatever somebody else's code raises is a ValueError that says where. It may even leave Python."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ValueError(f"{what}: {said(error)}") from error
