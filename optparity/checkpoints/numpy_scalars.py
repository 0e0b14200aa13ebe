"""Numbers of NumPy in a pickle, as `np.mean(losses)` leaves them in a checkpoint, read without NumPy's own unpickling.

torch's loader with `weights_only` calls nothing that it does not know. What stands here in the place of NumPy's functions takes the dtypes
of numbers, and as many bytes as they have.
"""

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

KINDS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class Dtype:
    """In the place of `numpy.dtype`."""

    def __init__(self, kind: Any, align: Any = False, copy: Any = True):
        if kind not in KINDS:
            raise ValueError(f"a NumPy dtype {kind!r}")
        self.kind: str = kind
        self.order: Any = "<"

    def __setstate__(self, state: Any) -> None:
        """What a pickle says of the dtype beside its kind: the order of its bytes is the second of it."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"a NumPy dtype in the order {order!r}")
        self.order = order


def scalar(dtype: Any, data: Any) -> np.generic:
    """In the place of `numpy._core.multiarray.scalar`: a number from its bytes."""
    if type(dtype) is not Dtype or not isinstance(data, bytes):
        raise ValueError("a NumPy number that is none")
    found = np.dtype(dtype.kind).newbyteorder(dtype.order)
    if len(data) != found.itemsize:
        raise ValueError(f"a NumPy number of {len(data)} bytes in {dtype.kind}")
    return np.frombuffer(data, found)[0].astype(dtype.kind)


def allowed() -> AbstractContextManager[Any]:
    """Within it, torch reads NumPy's numbers."""
    from torch.serialization import safe_globals

    scalars = [(scalar, f"numpy.{module}.multiarray.scalar") for module in ("core", "_core")]
    return safe_globals([*scalars, (Dtype, "numpy.dtype")])
