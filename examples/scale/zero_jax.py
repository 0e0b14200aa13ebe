"""A GPT in JAX on several devices: batches are spread over them, and so is the optimizer's state (ZeRO-1).

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python examples/scale/zero_jax.py

In two processes, each with its own devices, both at once:

    python examples/scale/zero_jax.py --coordinator localhost:9876 --processes 2 --rank 0
    python examples/scale/zero_jax.py --coordinator localhost:9876 --processes 2 --rank 1

With `--checkpoints out/run` the same commands again go on from the newest checkpoint, in any number of processes.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxopt_impl import adamw, zero_shardings
from optparity.datasets import characters
from optparity.models.in_flax import GPT

parser = argparse.ArgumentParser()
parser.add_argument("--coordinator")
parser.add_argument("--processes", type=int)
parser.add_argument("--rank", type=int)
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--checkpoints", type=Path, help="a folder that all processes see")
parser.add_argument("--every", type=int, default=20, help="steps between checkpoints")
parser.add_argument("--timeout", type=int, default=60, help="seconds until a process that is silent counts as lost")
options = parser.parse_args()
if options.coordinator:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of CPUs only
    how_long = {"heartbeat_timeout_seconds": options.timeout, "shutdown_timeout_seconds": options.timeout}
    jax.distributed.initialize(options.coordinator, options.processes, options.rank, **how_long)

data, alphabet = characters(block_size=32)
structure, params = nnx.split(GPT(len(alphabet), 32, n_layer=2, n_head=2, n_embd=32, rngs=nnx.Rngs(0)))
tx = adamw(1e-2)

mesh = Mesh(np.array(jax.devices()), ("data",))
whole, by_rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
shardings = zero_shardings(params, jax.eval_shape(tx.init, params), mesh)

params = jax.jit(lambda p: p, out_shardings=whole)(jax.tree.map(np.asarray, params))
state = jax.jit(tx.init, out_shardings=shardings)(params)


def loss_of(params, tokens, targets):
    return optax.losses.softmax_cross_entropy_with_integer_labels(nnx.merge(structure, params)(tokens), targets).mean()


@jax.jit(donate_argnums=(0, 1), out_shardings=(whole, shardings, whole))
def step(params, state, tokens, targets):
    loss, gradients = jax.value_and_grad(loss_of)(params, tokens, targets)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, loss


def batch(i):
    """The rows of this process, of a batch that all of them draw."""
    rows = np.random.default_rng(i).integers(len(data.inputs), size=32)
    own = np.array_split(rows, jax.process_count())[jax.process_index()]
    return [jax.make_array_from_process_local_data(by_rows, array[own].astype(np.int32)) for array in (data.inputs, data.targets)]


manager = None
if options.checkpoints:
    how = ocp.CheckpointManagerOptions(cleanup_tmp_directories=True, enable_async_checkpointing=False)
    manager = ocp.CheckpointManager(options.checkpoints.absolute(), options=how)

losses, done = [], 0
try:
    if manager and (newest := manager.latest_step()):
        params, state = manager.restore(newest, args=ocp.args.StandardRestore((params, state)))
        done = newest
    while done < options.steps:
        params, state, loss = step(params, state, *batch(done))
        losses.append(float(loss))
        done += 1
        if manager and (done % options.every == 0 or done == options.steps):
            manager.save(done, args=ocp.args.StandardSave((params, state)))
except RuntimeError as error:  # of gloo or of jax.distributed, where another process has ended or is silent
    error.add_note(f"Process {jax.process_index()} had taken {done} steps. Start all again: they go on from the newest checkpoint.")
    raise

if jax.process_index() == 0:
    of_one = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
    print(f"{len(jax.devices())} devices in {jax.process_count()} processes")
    if losses:
        print(f"loss {losses[0]:.2f}, after {options.steps} steps {losses[-1]:.2f}")
    print(f"optimizer state: {of_one:,} of {sum(leaf.nbytes for leaf in jax.tree.leaves(state)):,} bytes on each device")
