"""The tests that hold `jaxopt_impl` and `torch_ref` to one another, and the product to what it says."""

from optparity import assert_identical, compare

__all__ = ["assert_identical", "compare"]
