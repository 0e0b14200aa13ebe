"""Threefry-2x32 (Salmon et al. 2011): random bits as a function of a key and a counter.  Mirror: jaxopt_impl/around/threefry.py

Only whole numbers modulo 2^32: sums, turns and exclusive ors. So the bits are the same everywhere, in any order, on any device.
"""

from .. import numerics as nx

TURNS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry2x32(key, counter):
    """Two random words of a key and a counter, two words each; 20 rounds. JAX has it as `jax.extend.random.threefry2x32_p`."""
    keys = (*key, key[0] ^ key[1] ^ PARITY)
    a, b = counter[0] + keys[0], counter[1] + keys[1]
    for i in range(1, 6):
        for turn in TURNS[(i - 1) % 2]:
            a = a + b
            b = a ^ nx.rotate_left(b, turn)
        a, b = a + keys[i % 3], b + keys[(i + 1) % 3] + i
    return a, b


def of_leaf(key, step, leaf):
    """A key for one leaf at one step."""
    return threefry2x32(key, (step, leaf))


def sixteen(words, field):
    """16 random bits of two words, others for each of four fields."""
    return words[field % 4 // 2] >> field % 2 * 16 & 0xFFFF
