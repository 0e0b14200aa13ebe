"""An optimizer that somebody names: "pkg.module:factory", with its arguments."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Framework = Literal["jax", "torch"]


def said(error: BaseException) -> str:
    """What somebody else's exception says, in one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@dataclass(frozen=True)
class Named:
    """An optimizer by name. In JAX the factory gets the arguments and gives an optax transform; in torch it gets parameters before them.

    Attributes:
        framework: "jax" or "torch".
        name: "pkg.module:factory"; a factory may be an attribute of an attribute, "optax:contrib.muon".
        arguments: keyword arguments of the factory.
    """

    framework: Framework
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.name.replace(':', '.')}({arguments})"

    def factory(self) -> Callable[..., Any]:
        """What the name stands for. The working folder is searched too.

        Raises: ValueError in one line where there is no such module or attribute, where the import fails, or where it cannot be called.
        """
        module, colon, attribute = self.name.partition(":")
        if not (module and colon and attribute):
            raise ValueError(f"--{self.framework} {self.name}: pkg.module:factory is needed.")
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            found = importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a script may leave Python
            raise ValueError(f"--{self.framework} {self.name}: {module} cannot be imported: {said(error)}") from error
        for part in attribute.split("."):
            if not hasattr(found, part):
                raise ValueError(f"--{self.framework} {self.name}: {module} has no {attribute}.")
            found = getattr(found, part)
        if not callable(found):
            raise ValueError(f"--{self.framework} {self.name}: {attribute} is a {type(found).__name__}; a factory is needed.")
        return found

    def make(self, params: Any = None) -> Any:
        """The transform, or, of a list of torch parameters, the optimizer.

        Raises: ValueError in one line where the factory refuses, or gives something else.
        """
        factory = self.factory()
        try:
            made = factory(**self.arguments) if self.framework == "jax" else factory(params, **self.arguments)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{self} fails: {said(error)}") from error
        if self.framework == "jax" and not (hasattr(made, "init") and hasattr(made, "update")):
            raise ValueError(f"{self} gives a {type(made).__name__}; an optax.GradientTransformation is needed.")
        if self.framework == "torch" and not (hasattr(made, "step") and hasattr(made, "param_groups")):
            raise ValueError(f"{self} gives a {type(made).__name__}; a torch.optim.Optimizer is needed.")
        return made

    def bound(self) -> dict[str, Any]:
        """Every argument by its name, defaults included, as far as the signature of the factory tells."""
        signature = inspect.signature(self.factory())
        defaults = {key: p.default for key, p in signature.parameters.items() if p.default is not inspect.Parameter.empty}
        return {**defaults, **self.arguments}
