"""Many small leaves in one array, so that a step is a few kernels for all of them and not a few for each.

packed = pack(params)  # once
state = tx.init(packed)

gradients = jax.grad(lambda packed: loss(unpack(packed)))(packed)  # at each step
updates, state = tx.update(gradients, state, packed)
packed = optax.apply_updates(packed, updates)
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import keystr, tree_flatten_with_path


@dataclass(frozen=True)
class Layout:
    """How to take a `Packed` apart."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]  # of each leaf
    dtypes: tuple[str | None, ...]  # of each leaf, by which it is packed; None where it is kept

    def __reduce__(self):
        return Layout, (self.treedef, self.shapes, self.dtypes)  # without the hash, which another process has otherwise

    def __hash__(self) -> int:
        return self._hash  # jit asks at each call

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.treedef, self.shapes, self.dtypes))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Packed:
    """A pytree of few leaves that holds a tree of many: what `pack` makes and `unpack` takes apart. Any optax transform takes it."""

    flat: dict[str, Any]  # dtype -> [n], its small leaves one behind the other
    kept: list[Any]  # the other leaves as they are
    layout: Layout = field(metadata={"static": True})


def pack(tree: Any, below: int = 2**11, like: Packed | None = None) -> Any:
    """The small leaves of a tree in one array for each dtype.

    Args:
        tree: parameters; with `like` also gradients, updates or an optimizer's state.
        below: leaves of fewer elements than this are packed: where it wins on a CPU, the copies named below counted in. Leaves that are
            sharded are kept as they are, wherever that is known (outside of a jit): one array could not be sharded as they are.
        like: packed parameters. Every part of `tree` with their structure and shapes is packed as they are; leaves that share an
            array need one dtype, not theirs. (Where the parameters are one number, every float [] in the tree is such a part.)
    Returns: a `Packed`; with `like` the tree with a `Packed` in the place of each such part.
    Shapes: leaves of any shape and number of axes, [] too; packed into [n].  Dtypes: any.
    Raises: TypeError where a leaf is no array, naming the leaf, or where leaves that share an array differ in dtype; ValueError where no
        part of `tree` is like `like`.
    Exactness: bits are moved, never computed with. A transform whose rule is elementwise, as all of `jaxopt_impl`, gives the same bits
        packed as not; one that looks at a whole leaf (LARS, LAMB, Adafactor, a clipping of each leaf) does not.
    Costs: a copy of the small parameters in the loss, and of their gradients; no mask or partition can tell the leaves in a pack apart.
        `optax.flatten(tx)` asks no change of the loss, but slices its updates, a kernel for each leaf, and takes leaves of one dtype only.
    Example:
        >>> packed = pack({"w": jnp.ones((2, 3)), "b": jnp.zeros(3)})
        >>> packed.flat["float32"].shape, unpack(packed)["w"].shape
        ((9,), (2, 3))
    """
    if like is None:
        return _packed(tree, _layout(tree, below))

    def is_part(x):
        leaves, treedef = jax.tree.flatten(x)
        if treedef != like.layout.treedef or tuple(map(jnp.shape, leaves)) != like.layout.shapes:
            return False
        # a step counter is not the state of parameters that are one number
        return like.layout.shapes != ((),) or _counts(leaves[0]) == _counts(jax.tree.leaves(like)[0])

    parts, outer = jax.tree.flatten(tree, is_leaf=is_part)
    found = [is_part(part) for part in parts]
    if not any(found):
        raise ValueError(f"pack: no part of the tree has the structure and shapes of `like`: {like.layout.treedef}.")
    return outer.unflatten([_packed(part, like.layout) if here else part for part, here in zip(parts, found, strict=True)])


def unpack(tree: Any) -> Any:
    """The tree that was packed. Parameters, gradients, updates, a whole optimizer's state: every `Packed` in it is taken apart.

    An axis in front, as `vmap` gives it, stays in front of each leaf. NumPy arrays, as a callback has them, stay such.
    """
    is_packed = lambda x: isinstance(x, Packed)  # noqa: E731
    return jax.tree.map(lambda x: _unpacked(x) if is_packed(x) else x, tree, is_leaf=is_packed)


def _layout(tree, below: int) -> Layout:
    paths, treedef = tree_flatten_with_path(tree)
    for path, leaf in paths:
        if not hasattr(leaf, "dtype") and not isinstance(leaf, (bool, int, float, complex)):
            raise TypeError(f"pack: leaf params{keystr(path)} is a {type(leaf).__name__}; an array is needed.")
    leaves = [leaf for _, leaf in paths]
    dtypes = (jnp.result_type(leaf).name if jnp.size(leaf) < below and not _spread(leaf) else None for leaf in leaves)
    return Layout(treedef, tuple(map(jnp.shape, leaves)), tuple(dtypes))


def _spread(leaf) -> bool:
    return isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and not leaf.sharding.is_fully_replicated


def _counts(x) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.integer)


def _packed(tree, layout: Layout) -> Packed:
    small: dict[str, list] = {}
    kept = []
    for leaf, dtype in zip(jax.tree.leaves(tree), layout.dtypes, strict=True):
        if dtype is None:
            kept.append(leaf)
        else:
            small.setdefault(dtype, []).append(jnp.ravel(leaf))
    for dtype, leaves in small.items():  # concatenate would promote them to one
        found = sorted({leaf.dtype.name for leaf in leaves})
        if len(found) > 1:
            raise TypeError(f"pack: the leaves packed as {dtype} have dtypes {', '.join(found)}; one dtype is needed.")
    return Packed({dtype: jnp.concatenate(leaves) for dtype, leaves in small.items()}, kept, layout)


def _unpacked(packed: Packed) -> Any:
    layout, kept = packed.layout, iter(packed.kept)
    small = {}
    for dtype, flat in packed.flat.items():
        sizes = [math.prod(shape) for shape, own in zip(layout.shapes, layout.dtypes, strict=True) if own == dtype]
        split = np.split if isinstance(flat, np.ndarray) else jnp.split
        small[dtype] = iter(split(flat, np.cumsum(sizes)[:-1], axis=-1))
    leaves = []
    for shape, dtype in zip(layout.shapes, layout.dtypes, strict=True):
        if dtype is None:
            leaves.append(next(kept))
        else:
            leaf = next(small[dtype])
            leaves.append(leaf.reshape(leaf.shape[:-1] + shape))
    return layout.treedef.unflatten(leaves)
