"""Floating-point numbers as bit patterns: what differs, and by how many ulp.

The distance counts representable numbers in IEEE 754's total order, where -0 stands just before +0: it is 0 exactly where the bits
are the same, defined across zero and up to the infinities. NaN equals NaN whatever its payload, and is as far as can be from the rest.
"""

import hashlib
from collections.abc import Iterable

import numpy as np


def as_bits(x: np.ndarray) -> np.ndarray:
    """The same memory as unsigned integers."""
    x = np.asarray(x)
    return x.view(f"u{x.dtype.itemsize}")


def is_nan(x: np.ndarray) -> np.ndarray:
    return np.asarray(x) != np.asarray(x)


def differing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where the bits of two arrays of one dtype and shape differ, NaN payloads aside."""
    different = as_bits(a) != as_bits(b)
    return different & ~(is_nan(a) & is_nan(b)) if different.any() else different


def ulp_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How many representable numbers lie from a to b, as uint64."""
    a, b = np.asarray(a), np.asarray(b)
    ranks = [_rank(x) for x in (a, b)]
    distance = np.maximum(*ranks) - np.minimum(*ranks)
    farthest = np.uint64(2 ** (8 * a.dtype.itemsize) - 1)
    distance = np.where(is_nan(a) ^ is_nan(b), farthest, distance)
    return np.where(is_nan(a) & is_nan(b), np.uint64(0), distance)


def _rank(x: np.ndarray) -> np.ndarray:
    """The place in the total order, from 0 for the negative NaNs."""
    sign_bit = np.uint64(2 ** (8 * x.dtype.itemsize - 1))
    bits = as_bits(x).astype(np.uint64)
    return np.where(bits & sign_bit, (sign_bit - np.uint64(1)) - (bits & ~sign_bit), bits | sign_bit)


def as_hex(x) -> str:
    """The bit pattern of one number, as 0x3f800000."""
    x = np.asarray(x)
    return f"0x{int(as_bits(x)):0{2 * x.dtype.itemsize}x}"


def digest(arrays: Iterable[np.ndarray]) -> str:
    """A hash of the bits of arrays (every NaN alike), with their shapes and dtypes."""
    sha = hashlib.sha256()
    for x in arrays:
        x = np.asarray(x)
        sha.update(f"{x.dtype.name}{x.shape}".encode())
        if x.dtype.kind != "i":
            x = np.where(is_nan(x), np.array(np.nan, x.dtype), x)
        sha.update(np.ascontiguousarray(x).tobytes())
    return sha.hexdigest()[:16]
