"""Compile updates over leaves that are spread over the chips of a TPU topology, none of which is here.

    python -m parity_tests.accelerators.sharded TOPOLOGY

A JSON document on the last line of standard output: the optimized program of each update, what of its arguments is on each chip, and
what they are in all. A process of its own, whose environment is `optparity.accelerators.targets`'.
"""

import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxopt_impl import zero_shardings
from optparity.registry import Row

from ..sampling import FULL

SHAPES = {"embedding": (1024, 256), "kernel": (256, 512), "uneven": (7, 5), "scale": ()}
DTYPES = ("float32", "bfloat16")


class Case(NamedTuple):
    """A function of gradients, state and parameters, and where these and its results lie."""

    function: Callable
    arguments: tuple[Any, ...]
    shardings: tuple[Any, ...]
    results: tuple[Any, ...]


def zero(row: Row, dtype: str, mesh: Mesh) -> Case:
    """The update alone, everything spread over all chips."""
    params = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in SHAPES.items()}
    return _update(row, params, mesh)


def beside_tensors(row: Row, dtype: str, mesh: Mesh) -> Case:
    """The same, beside tensor parallelism: half of the chips' axes have a part of each kernel already."""
    side = int(len(mesh.devices.flat) ** 0.5)
    both = Mesh(mesh.devices.reshape(side, side), ("data", "model"))
    own = {"embedding": PartitionSpec("model"), "kernel": PartitionSpec(None, "model")}
    places = {name: NamedSharding(both, own.get(name, PartitionSpec())) for name in SHAPES}
    params = {name: jax.ShapeDtypeStruct(shape, dtype, sharding=places[name]) for name, shape in SHAPES.items()}
    return _update(row, params, both)


def gathered(row: Row, dtype: str, mesh: Mesh) -> Case:
    """Parameters whole on every chip, as in stage 1 of ZeRO: what has to be seen as a collective."""
    spread = zero(row, dtype, mesh)
    whole = NamedSharding(mesh, PartitionSpec())

    def step(gradients: Any, state: Any, params: Any) -> tuple[Any, Any]:
        updates, state = row.tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return Case(step, spread.arguments, (whole, spread.shardings[1], whole), (whole, spread.results[1]))


def _update(row: Row, params: Any, mesh: Mesh) -> Case:
    state = jax.eval_shape(row.tx.init, params)
    everything, own = zero_shardings(params, params, mesh), zero_shardings(params, state, mesh)
    return Case(row.tx.update, (params, state, params), (everything, own, everything), (everything, own))


def compiled(case: Case) -> dict[str, Any]:
    arguments = jax.tree.map(lambda x, to: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=to), case.arguments, _each(case))
    found = jax.jit(case.function, out_shardings=case.results).lower(*arguments).compile()
    state = jax.tree.leaves(arguments[1])
    here = sum(np.prod(x.sharding.shard_shape(x.shape), dtype=int) * x.dtype.itemsize for x in state)
    used = found.memory_analysis()
    small = sum(x.size * x.dtype.itemsize for x in state if x.sharding.is_fully_replicated)
    sizes = {"state_here": int(here), "state": sum(x.size * x.dtype.itemsize for x in state), "small": small}
    return {"hlo": found.as_text(), **sizes, "arguments": used.argument_size_in_bytes if used else 0}


def _each(case: Case) -> Any:
    """A sharding for each argument, where one was given for a whole tree."""
    is_one = lambda x: isinstance(x, NamedSharding)  # noqa: E731
    return tuple(
        jax.tree.map(lambda _, own=own: own, tree) if is_one(own) else own for tree, own in zip(case.arguments, case.shardings, strict=True)
    )


CASES = [
    *((zero, row, dtype) for row in FULL for dtype in DTYPES),
    *((kind, row, "float32") for kind in (beside_tensors, gathered) for row in FULL if row.optimizer == "adam"),
]


def main(topology: str) -> None:
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = Mesh(np.array(devices), ("data",))
    found = {f"{kind.__name__} | {row} | {dtype}": compiled(kind(row, dtype, mesh)) for kind, row, dtype in CASES}
    print(json.dumps({"chips": len(devices), "programs": found}))


if __name__ == "__main__":
    main(sys.argv[1])
