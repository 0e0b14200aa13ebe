"""One of several processes of jax.distributed, each with its own devices: optimizers whose state is spread over all of them.

    python -m parity_tests.jaxopt_impl.processes RANK PROCESSES PORT CASES.json STEPS STAGE

CASES are [optimizer, row, dtype]; what differs from one device is printed as a JSON list. In STAGE 1 of ZeRO every device has the whole
parameters, which each step gathers; in stage 3 these are spread too, and nothing is sent.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxopt_impl import zero_shardings
from optparity.parity.bits import differing
from optparity.parity.streams import gradients, parameters
from optparity.registry import Row

SHAPES = {"embedding": (64, 24), "kernel": (24, 16), "uneven": (7, 5), "scale": ()}


def placed(tree: Any, shardings: Any) -> Any:
    """NumPy arrays that every process has, each putting its shards on its devices."""
    return jax.tree.map(lambda x, sharding: jax.make_array_from_callback(x.shape, sharding, lambda i: x[i]), tree, shardings)


def apart(row: Row, dtype: str, steps: int, stage: int) -> Iterator[str]:
    """The shards of this process that have other bits than one device has."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    whole, tx = NamedSharding(mesh, PartitionSpec()), row.tx

    def step(params, state, g):
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    with jax.default_device(jax.local_devices()[0]):
        start = parameters(SHAPES, dtype)
        alone, its = jax.tree.map(jnp.array, start), tx.init(start)
    shardings = zero_shardings(start, its, mesh)
    everywhere = zero_shardings(start, start, mesh) if stage == 3 else jax.tree.map(lambda _: whole, start)
    params, state = placed(start, everywhere), placed(jax.tree.map(np.asarray, its), shardings)
    spread, once = jax.jit(step, out_shardings=(everywhere, shardings)), jax.jit(step)
    for g in itertools.islice(gradients("normal", start), steps):
        alone, its = once(alone, its, g)
        params, state = spread(params, state, placed(g, everywhere))
    pairs = zip(jax.tree_util.tree_leaves_with_path((params, state)), jax.tree.leaves((alone, its)), strict=True)
    for (path, got), expected in pairs:
        for shard in got.addressable_shards:
            if differing(np.asarray(shard.data), np.asarray(expected)[shard.index]).any():
                yield f"{row}, {dtype}: {jax.tree_util.keystr(path)} on {shard.device}"


def main(rank: str, processes: str, port: str, cases: str, steps: str, stage: str) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", int(processes), int(rank))
    found = []
    for optimizer, label, dtype in json.loads(Path(cases).read_text()):
        found += apart(Row(optimizer, label), dtype, int(steps), int(stage))
    print(json.dumps({"devices": len(jax.devices()), "apart": found}))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
