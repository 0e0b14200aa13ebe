"""The same optimizer in JAX and in PyTorch, and the proof, bit for bit, that it is the same.

    optparity.compare(tx, make_torch_optimizer, params, gradients)  # a Report, bit by bit

`interop` carries an optimizer's state between the frameworks, `accounting` counts what a training step costs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import accounting, interop
    from .parity.compare import assert_identical, compare
    from .parity.reports import Difference, Report
    from .registry import OPTIMIZERS

    __version__: str

__all__ = ["OPTIMIZERS", "Difference", "Report", "__version__", "accounting", "assert_identical", "compare", "interop"]

_HOMES = {"OPTIMIZERS": ".registry", "assert_identical": ".parity.compare", "compare": ".parity.compare"}
_HOMES |= {"Difference": ".parity.reports", "Report": ".parity.reports"}


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
