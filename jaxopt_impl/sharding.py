"""Which axis of each leaf of an optimizer's state is spread over the devices that share the data (ZeRO, Rajbhandari et al. 2020).

There is no engine here: only shardings for `jit`, which XLA's partitioner carries out. A rule is elementwise: its bits are the same.
"""

from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import keystr, tree_flatten_with_path, tree_map_with_path


def zero_shardings(params: Any, state: Any, mesh: Mesh, axis: str = "data") -> Any:
    """The shardings of an optimizer's state, each leaf spread over the data axis of the mesh: stage 1 of ZeRO.

    Give them to `jit` as in_shardings and out_shardings of the state. For stage 2 call it with the gradients in the place of the state,
    and `jax.lax.with_sharding_constraint` them: XLA then scatters their sum, and gathers the parameters after the step.

    Args:
        params: the parameters, or their shapes (`jax.eval_shape`). One that lies on a part of this mesh, as under tensor parallelism,
            keeps its axes in its state.
        state: of any optax transform, ours or not, or a tree like the parameters.
        mesh, axis: the devices, and the name of the axis along which batches are spread.
    Returns: a tree like the state, of `jax.sharding.NamedSharding`.
    Shapes: of each leaf the longest dimension is spread that no other axis of the mesh has and that divides by the axis' size. A leaf
        without one (a counter, a bias of 7) lies whole on every device; it is not padded.
    Raises: ValueError where the mesh has no such axis.
    Exactness: shardings change no bit of an update. Run on 8 devices of a CPU; for TPUs compiled, not run.
    Differs from: optax, which has none; DeepSpeed's and FSDP's flat parameters, which are cut anywhere.
    Source: Rajbhandari, Rasley, Ruwase & He 2020, section 5.
    Example:
        >>> import jax, numpy as np
        >>> import jaxopt_impl
        >>> mesh = Mesh(np.array(jax.devices()), ("data",))
        >>> params = {"kernel": jnp.ones((16, 24)), "scale": jnp.ones(())}
        >>> shardings = zero_shardings(params, jaxopt_impl.adam(0.1).init(params), mesh)
        >>> tuple(shardings.exp_avg["kernel"].spec), tuple(shardings.step.spec)
        ((None, 'data'), ())
    """
    if axis not in mesh.axis_names:
        raise ValueError(f"zero_shardings: the mesh has no axis {axis!r}; one of {', '.join(map(repr, mesh.axis_names))} is needed.")
    own = {keystr(path): (jnp.shape(p), _spec(p, mesh)) for path, p in tree_flatten_with_path(params)[0]}

    def of_leaf(path: Any, leaf: Any) -> NamedSharding:
        shape = jnp.shape(leaf)
        specs = (spec for i in range(len(path) + 1) for its, spec in [own.get(keystr(path[i:]), ((), ()))] if its == shape)
        return NamedSharding(mesh, _spread(next(specs, ()), shape, mesh.shape[axis], axis))

    return tree_map_with_path(of_leaf, state)


def _spec(p: Any, mesh: Mesh) -> tuple:
    """How a parameter lies on the mesh already."""
    sharding = getattr(p, "sharding", None)
    return tuple(sharding.spec) if isinstance(sharding, NamedSharding) and sharding.mesh == mesh else ()


def _spread(spec: tuple, shape: tuple[int, ...], devices: int, axis: str) -> PartitionSpec:
    """A sharding with the axis in it, where a dimension is free for it."""
    named = [*spec, *[None] * (len(shape) - len(spec))]
    used = [name for names in named if names is not None for name in ([names] if isinstance(names, str) else names)]
    free = [i for i, size in enumerate(shape) if named[i] is None and size and size % devices == 0]
    if free and axis not in used:
        named[max(free, key=lambda i: shape[i])] = axis
    while named and named[-1] is None:
        named.pop()
    return PartitionSpec(*named)
