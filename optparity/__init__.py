"""The same optimizer in JAX and in PyTorch, and the proof, bit for bit, that it is the same.

    optparity.compare(tx, make_torch_optimizer, params, gradients)  # a Report, bit by bit

`interop` carries an optimizer's state between the frameworks, `accounting` counts what a training step costs.
"""

from importlib.metadata import version

from . import accounting, interop
from .parity.compare import assert_identical, compare
from .parity.reports import Difference, Report
from .registry import OPTIMIZERS

__version__ = version("optparity")

__all__ = ["OPTIMIZERS", "Difference", "Report", "__version__", "accounting", "assert_identical", "compare", "interop"]
