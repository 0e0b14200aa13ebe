"""Why two optimizers part: the conventions in which they are known to differ, tried one after another."""

from .explaining import Difference, Explanation, Finding, examine, explain, explain_course
from .sides import Loop

__all__ = ["Difference", "Explanation", "Finding", "Loop", "examine", "explain", "explain_course"]
