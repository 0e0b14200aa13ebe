"""Any two optimizers, or any two runs, against each other: what is compared, how it is judged, what was found."""

from .both import Result, against
from .course import STAGES, Course, Distance, Parting, Place
from .factories import Named
from .modes import BITS, Mode
from .rounding import Verdict

__all__ = ["BITS", "STAGES", "Course", "Distance", "Mode", "Named", "Parting", "Place", "Result", "Verdict", "against"]
