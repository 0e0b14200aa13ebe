"""When two arrays count as the same: by their bits, within so many ulp, or within tolerances."""

from dataclasses import dataclass

import numpy as np

from ..parity.bits import differing, ulp_distance


@dataclass(frozen=True)
class Mode:
    """One way to judge; named in every report.

    Attributes:
        ulp: how many representable numbers may lie between two elements. 0: the bits are the same.
        rtol, atol: instead, |first - second| <= atol + rtol |second|, as numpy.allclose; NaN equals NaN.
    Raises: ValueError for a negative or NaN number, or for ulp together with tolerances.
    """

    ulp: int = 0
    rtol: float | None = None
    atol: float | None = None

    def __post_init__(self):
        for name in ("ulp", "rtol", "atol"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"mode: {name} must be at least 0, got {value}.")
        if self.ulp and self.tolerant:
            raise ValueError(f"mode: ulp={self.ulp} and tolerances are two modes; one is needed.")

    @property
    def tolerant(self) -> bool:
        return self.rtol is not None or self.atol is not None

    def rejects(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Where two arrays of one shape and dtype are not the same."""
        if self.tolerant:
            a, b = (np.asarray(x).astype(np.float64) for x in (first, second))
            return ~np.isclose(a, b, rtol=self.rtol or 0.0, atol=self.atol or 0.0, equal_nan=True)
        return ulp_distance(first, second) > self.ulp if self.ulp else differing(first, second)

    def __str__(self) -> str:
        if self.tolerant:
            return f"rtol={self.rtol or 0:g}, atol={self.atol or 0:g}"
        return f"ulp={self.ulp}" if self.ulp else "bits"


BITS = Mode()
