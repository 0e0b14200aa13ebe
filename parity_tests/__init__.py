"""The harness that compares optimizers bit for bit, and the tests that hold `jaxopt_impl` and `torch_ref` to it."""

from .harness.report import Difference, Report
from .harness.trials import assert_identical, compare

__all__ = ["Difference", "Report", "assert_identical", "compare"]
