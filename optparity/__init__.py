"""The same optimizer in JAX and in PyTorch, and the proof, bit for bit, that it is the same.

    optparity.compare(tx, make_torch_optimizer, params, gradients)  # a Report, bit by bit

`Recorder`, `record_torch` and `recorded` write down what a run does, for `optparity diff` and `optparity replay`.
`interop` carries an optimizer's state between the frameworks, `accounting` counts what a training step costs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import accounting, interop
    from .parity.compare import assert_identical, compare
    from .parity.reports import Difference, Report
    from .registry import OPTIMIZERS
    from .traces.in_optax import recorded
    from .traces.in_torch import record_torch
    from .traces.recorder import Recorder

    __version__: str

__all__ = ["OPTIMIZERS", "Difference", "Recorder", "Report", "__version__", "accounting", "assert_identical", "compare", "interop"]
__all__ += ["record_torch", "recorded"]

_HOMES = {"OPTIMIZERS": ".registry", "assert_identical": ".parity.compare", "compare": ".parity.compare"}
_HOMES |= {"Difference": ".parity.reports", "Report": ".parity.reports"}
_HOMES |= {"Recorder": ".traces.recorder", "record_torch": ".traces.in_torch", "recorded": ".traces.in_optax"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `optparity --help` and shell completion need not wait for jax."""
    if name in ("accounting", "interop"):
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("optparity")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
