"""Threefry-2x32 (Salmon et al. 2011): random bits as a function of a key and a counter.  Mirror: torch_ref/around/threefry.py

Only whole numbers modulo 2^32: sums, turns and exclusive ors. So the bits are the same everywhere, in any order, on any device.
"""

import jax
import jax.numpy as jnp
from jax.extend.random import threefry2x32_p


def threefry2x32(key, counter) -> tuple[jax.Array, jax.Array]:
    """Two random words of a key and a counter, two words each; 20 rounds.

    JAX's own, which is a loop where XLA would compute the rounds once for each array that they go into, and is none on GPUs and TPUs.
    """
    counter = jnp.broadcast_arrays(*(jnp.asarray(word, jnp.uint32) for word in counter))
    return tuple(threefry2x32_p.bind(*key, *counter))


def of_leaf(key, step, leaf):
    """A key for one leaf at one step."""
    return threefry2x32(key, (step, leaf))


def sixteen(words, field):
    """16 random bits of two words, others for each of four fields."""
    return words[field % 4 // 2] >> field % 2 * 16 & 0xFFFF
