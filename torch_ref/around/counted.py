"""What a schedule is: a function of the count of steps, in float64, rounded once.  In JAX: jaxopt_impl/around/counted.py"""

from collections.abc import Callable

import numpy as np


class Schedule:
    """`count -> value`, a Python number that has been rounded to float32, as a schedule's value has it in JAX.

    Args:
        rule: the value as a function of the count, both floats.
    Example:
        >>> halved = Schedule(lambda t: 0.5 / (t + 1))
        >>> halved(1)
        0.25
    """

    def __init__(self, rule: Callable):
        self.rule = rule

    def __call__(self, count: int, dtype: str = "float32") -> float:
        return float(np.dtype(dtype).type(self.rule(float(count))))
