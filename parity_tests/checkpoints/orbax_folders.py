"""Folders as people save them in JAX, by Orbax and Flax themselves, and what belongs to which parameter in torch.

Every element of every leaf has a gradient of its own, so that a moment tells whose it is.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import torch
from flax import linen, nnx
from flax.training import checkpoints
from flax.training.train_state import TrainState

import jaxopt_impl
from optparity.interop.leaves import Leaves

SIZES = ((3, 4), (4, 3), (3, 4))  # (in, out): the first and the last have one shape
STEPS = 2
ADAM = optax.adamw(1e-3)
OURS = jaxopt_impl.adamw(1e-3)


class Saved(NamedTuple):
    """What somebody has saved.

    Attributes:
        path: what is given to the command.
        params: the model in JAX.
        moments: torch's field -> its tree in JAX.
        optimizer, options: the class in torch, and its arguments.
        arguments: the command's.
        step: how many steps were taken; None where torch does not tell.
        left: what is left behind.
        missing: the leaves without moments.
    """

    path: Path
    params: Any
    moments: Mapping[str, Any]
    optimizer: str = "AdamW"
    options: Mapping[str, Any] = MappingProxyType({})
    arguments: Sequence[Any] = ()
    step: int | None = STEPS
    left: Sequence[str] = ()
    missing: Sequence[str] = ()


class Net(linen.Module):
    @linen.compact
    def __call__(self, x):
        for _, size in SIZES:
            x = linen.Dense(size)(x)
        return x


class Layers(nnx.Module):
    """With a generator, which is left behind."""

    def __init__(self):
        self.layers = nnx.List([nnx.Linear(*size, rngs=nnx.Rngs(0)) for size in SIZES])
        self.dropout = nnx.Dropout(0.1, rngs=nnx.Rngs(1))


def torch_model():
    return torch.nn.Sequential(*(torch.nn.Linear(*size) for size in SIZES))


def valued(params, scale=1.0):
    """Another number for every element of every leaf."""
    leaves, treedef = jax.tree.flatten(params)
    new = [(jnp.arange(leaf.size) / 8 + i + scale).reshape(leaf.shape).astype(leaf.dtype) for i, leaf in enumerate(leaves)]
    return treedef.unflatten(new)


@functools.cache
def linen_params(dtype="float32"):
    params = Net().init(jax.random.key(0), jnp.ones((1, 3)))["params"]
    return valued(jax.tree.map(lambda leaf: leaf.astype(dtype), params))


def stepped(tx, params, steps=STEPS) -> tuple[Any, Any]:
    """Parameters and state after some steps."""
    state, update = tx.init(params), jax.jit(tx.update)
    for i in range(steps):
        updates, state = update(valued(params, i), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def by_name(tree):
    """Leaves by torch's names, as torch has them: the layers are numbered there, and a kernel is transposed."""
    found = {}
    for path, leaf in Leaves(tree).by_path.items():
        module, _, last = path.rpartition(".")
        number = module.removeprefix("Dense_").removeprefix("layers.")
        array = np.asarray(leaf)
        found[f"{number}.{ {'kernel': 'weight'}.get(last, last) }"] = array.T if last == "kernel" else array
    return found


def adam_moments(state):
    return {"exp_avg": state.mu, "exp_avg_sq": state.nu}


def our_moments(state):
    return {name: tree for name, tree in state._asdict().items() if name != "step" and tree is not None}


def save(folder, tree, checkpointer: Callable[[], ocp.Checkpointer] = ocp.StandardCheckpointer):
    with checkpointer() as saver:
        saver.save(folder.absolute(), tree)


def without_ocdbt():
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False))


def of_pytree():
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


@functools.cache
def train_state(tx=ADAM, dtype="float32"):
    state = TrainState.create(apply_fn=None, params=linen_params(dtype), tx=tx)
    for i in range(STEPS):
        state = state.apply_gradients(grads=valued(state.params, i))
    return state


def adamw_saved(path, state, **changes):
    return Saved(path, state.params, adam_moments(state.opt_state[0]), **changes)


# One TrainState in layouts of Orbax


def standard(folder):
    state = train_state()
    save(folder, state)
    return adamw_saved(folder, state)


def pytree_whose_name_has_dots(folder):
    state, path = train_state(), folder / "run-v1.5"
    save(path, {"params": state.params, "opt_state": state.opt_state}, of_pytree)
    return adamw_saved(path, state)


def a_file_for_each_array(folder):
    state = train_state()
    save(folder, state, without_ocdbt)
    return adamw_saved(folder, state)


def newest_step(folder):
    state = train_state()
    with ocp.CheckpointManager((folder / "run").absolute()) as manager:
        for step in (9, 10, 100):
            now = state if step == 100 else state.replace(params=valued(state.params, step))
            manager.save(step, args=ocp.args.StandardSave(now))
    return adamw_saved(folder / "run", state)


def a_step(folder):
    return newest_step(folder)._replace(path=folder / "run" / "100")


def an_item(folder):
    return newest_step(folder)._replace(path=folder / "run" / "100" / "default")


def composite_with_prefix_and_zeros(folder):
    state = train_state()
    options = ocp.CheckpointManagerOptions(step_prefix="ckpt", step_format_fixed_length=8)
    items = {"params": ocp.args.StandardSave(state.params), "opt_state": ocp.args.StandardSave(state.opt_state)}
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        manager.save(STEPS, args=ocp.args.Composite(**items, metadata=ocp.args.JsonSave({"epoch": 3})), metrics={"loss": 1.0})
    return adamw_saved(folder, state, left=("metadata",))


def state_beside_other_items(folder):
    state, others = train_state(), {"key": ocp.args.JaxRandomKeySave(jax.random.key(0)), "metadata": ocp.args.JsonSave({"epoch": 3})}
    with ocp.CheckpointManager(folder.absolute()) as manager:
        items = ocp.args.Composite(state=ocp.args.PyTreeSave(state), mean=ocp.args.ArraySave(jnp.ones(3)), **others)
        manager.save(STEPS, args=items)
    return adamw_saved(folder, state, left=("key", "mean", "metadata"))


def sharded(folder):
    state, mesh = train_state(), jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

    def place(leaf):
        axes = ("x",) if jnp.ndim(leaf) and leaf.shape[0] % 2 == 0 else ()
        return jax.device_put(leaf, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)))

    save(folder, jax.tree.map(place, {"params": state.params, "opt_state": state.opt_state}))
    return adamw_saved(folder, state)


def among_other_things(folder):
    state = train_state()
    others = {"rng": jax.random.PRNGKey(0), "host": np.ones(3), "epoch": 3, "loss": 2.5, "note": "mine", "none": None, "empty": {}}
    key = {"keys": {"dropout": jax.random.key(1)}}
    tree = {"params": jax.tree.map(np.asarray, state.params), "opt_state": state.opt_state, **others, **key}
    save(folder, tree, of_pytree)
    return adamw_saved(folder, state, left=("epoch", "host", "keys", "loss", "note", "rng"))


def bfloat16(folder):
    state = train_state(optax.adamw(1e-3, mu_dtype="bfloat16"), "bfloat16")
    save(folder, state)
    return adamw_saved(folder, state)


def state_alone(folder):
    state = train_state()
    save(folder, state.opt_state)
    return adamw_saved(folder, state)


def zarr3(folder):
    state = train_state()
    save(folder, state, lambda: ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_zarr3=True)))
    return adamw_saved(folder, state)


def of_orbax_v1(folder):
    state = train_state()
    ocp.v1.save(folder.absolute(), {"params": state.params, "opt_state": state.opt_state})
    return adamw_saved(folder, state)


def of_flax_training_checkpoints(folder):
    state = train_state()
    for step in (2, 10):
        checkpoints.save_checkpoint(str(folder), state, step, keep=2)
    return adamw_saved(folder, state)


def partitioned_variables_of_linen(folder):
    boxed = linen.LogicallyPartitioned
    state = train_state()
    box = functools.partial(jax.tree.map, lambda leaf: boxed(leaf, (None,) * leaf.ndim) if leaf.ndim == 2 else leaf)
    save(folder, {"params": box(state.params), "opt_state": box(state.opt_state)})
    return adamw_saved(folder, state)


def calls_beside_the_steps_of_multisteps(folder):
    state = train_state(optax.MultiSteps(ADAM, 2).gradient_transformation())
    save(folder, state)
    return Saved(folder, state.params, adam_moments(state.opt_state.inner_opt_state[0]), step=STEPS // 2)


# Flax NNX


def nnx_run(tx=None):
    model = Layers()
    nnx.update(model, valued(nnx.state(model, nnx.Param)))
    optimizer = nnx.Optimizer(model, tx or optax.adam(1e-3), wrt=nnx.Param)
    for i in range(STEPS):
        optimizer.update(model, valued(nnx.state(model, nnx.Param), i))
    return model, optimizer


def nnx_saved(path, model, optimizer):
    left = ("dropout.rngs.count", "dropout.rngs.key")
    return Saved(path, nnx.state(model, nnx.Param), adam_moments(optimizer.opt_state[0]), "Adam", left=left)


def nnx_states(folder):
    model, optimizer = nnx_run()
    save(folder, {"model": nnx.split(model)[1], "optimizer": nnx.state(optimizer)})
    return nnx_saved(folder, model, optimizer)


def nnx_both_in_one(folder):
    model, optimizer = nnx_run()
    save(folder, nnx.state((model, optimizer)))
    return nnx_saved(folder, model, optimizer)


def nnx_pure_dicts_as_items(folder):
    model, optimizer = nnx_run()
    items = {name: ocp.args.StandardSave(nnx.to_pure_dict(nnx.state(each))) for name, each in (("model", model), ("opt", optimizer))}
    with ocp.CheckpointManager(folder.absolute()) as manager:
        manager.save(STEPS, args=ocp.args.Composite(**items))
    return nnx_saved(folder, model, optimizer)


def nnx_sgd_whose_step_is_beside(folder):
    model, optimizer = nnx_run(optax.sgd(0.1, 0.9))
    save(folder, {"model": nnx.state(model), "optimizer": nnx.state(optimizer)})
    return Saved(folder, nnx.state(model, nnx.Param), {"momentum_buffer": optimizer.opt_state[0].trace}, **SGD)


def nnx_ours_in_a_chain(folder):
    model, optimizer = nnx_run(optax.chain(optax.clip(1.0), OURS))
    save(folder, {"model": nnx.state(model), "optimizer": nnx.state(optimizer)})
    return Saved(folder, nnx.state(model, nnx.Param), our_moments(optimizer.opt_state[1]))


# States of optax


def of_transform(tx, find, **changes):
    """A folder with the state of a transform, in which `find` finds the moments."""

    def make(folder):
        params, state = stepped(tx, linen_params())
        save(folder, {"params": params, "opt_state": state})
        return Saved(folder, params, find(state), **changes)

    return make


SGD = {"optimizer": "SGD", "options": {"momentum": 0.9}}
MASK = {f"Dense_{i}": {"kernel": True, "bias": False} for i in range(len(SIZES))}
LABELS = {f"Dense_{i}": {"kernel": 1, "bias": 0} for i in range(len(SIZES))}


def joined(*parts):
    """The moments of a partition's parts in one tree."""

    def one(*leaves):
        return next(leaf for leaf in leaves if not isinstance(leaf, optax.MaskedNode))

    is_leaf = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    return {name: jax.tree.map(one, *(part[name] for part in parts), is_leaf=is_leaf) for name in parts[0]}


def at_two_steps(tx, later):
    """A tree of a partition whose last layer has taken more steps: `later` is its state then."""
    labels = {f"Dense_{i}": "late" if i == 2 else "early" for i in range(len(SIZES))}
    params, state = stepped(optax.partition({"early": tx, "late": tx}, labels), linen_params())
    late = optax.MaskedState(later(state.inner_states["late"].inner_state))
    return {"params": params, "opt_state": state._replace(inner_states={**state.inner_states, "late": late})}


OF_TRANSFORMS = {
    "inject_hyperparams": of_transform(
        optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3), lambda state: adam_moments(state.inner_state[0])
    ),
    "MultiSteps": of_transform(
        optax.MultiSteps(ADAM, 2).gradient_transformation(), lambda state: adam_moments(state.inner_opt_state[0]), step=STEPS // 2
    ),
    "apply_if_finite": of_transform(optax.apply_if_finite(ADAM, 3), lambda state: adam_moments(state.inner_state[0])),
    "a mask of decay": of_transform(optax.adamw(1e-3, mask=MASK), lambda state: adam_moments(state[0])),
    "named_chain": of_transform(
        optax.named_chain(("clip", optax.clip(1.0)), ("adamw", ADAM)), lambda state: adam_moments(state["adamw"][0])
    ),
    "a schedule": of_transform(optax.adamw(optax.constant_schedule(1e-3)), lambda state: adam_moments(state[0])),
    "partition": of_transform(
        optax.partition({0: ADAM, 1: optax.adamw(1e-3, weight_decay=0.1)}, LABELS),
        lambda state: joined(*(adam_moments(each.inner_state[0]) for each in state.inner_states.values())),
    ),
    "amsgrad, ours": of_transform(jaxopt_impl.adamw(1e-3, amsgrad=True), our_moments, options={"amsgrad": True}),
    "masked": of_transform(
        optax.masked(ADAM, MASK),
        lambda state: adam_moments(state.inner_state[0]),
        arguments=[part for i in range(len(SIZES)) for part in ("--missing", f"{i}.bias")],
        missing=[f"Dense_{i}.bias" for i in range(len(SIZES))],
    ),
    "sgd": of_transform(optax.sgd(0.1, 0.9), lambda state: {"momentum_buffer": state[0].trace}, **SGD, arguments=("--step", STEPS)),
    "sgd without momentum": of_transform(optax.sgd(0.1), lambda state: {}, optimizer="SGD", step=0),
    "adagrad": of_transform(
        optax.adagrad(0.1), lambda state: {"sum": state[0].sum_of_squares}, optimizer="Adagrad", arguments=("--step", STEPS)
    ),
    "rmsprop": of_transform(
        optax.rmsprop(0.1), lambda state: {"square_avg": state[0].nu}, optimizer="RMSprop", arguments=("--step", STEPS)
    ),
    "ours": of_transform(OURS, our_moments),
    "ours in a chain": of_transform(optax.chain(optax.clip(1.0), OURS), lambda state: our_moments(state[1])),
    "ours, injected": of_transform(
        optax.inject_hyperparams(jaxopt_impl.adamw)(learning_rate=1e-3), lambda state: our_moments(state.inner_state)
    ),
    "ours, partitioned": of_transform(
        optax.partition({0: OURS, 1: jaxopt_impl.adamw(1e-3, weight_decay=0.0)}, LABELS),
        lambda state: joined(*(our_moments(each.inner_state) for each in state.inner_states.values())),
    ),
    "ours, sgd": of_transform(jaxopt_impl.sgd(0.1, momentum=0.9), our_moments, **SGD),
}
OF_ONE_STATE = (
    *(standard, pytree_whose_name_has_dots, a_file_for_each_array, newest_step, a_step, an_item, composite_with_prefix_and_zeros),
    *(state_beside_other_items, sharded, among_other_things, bfloat16, state_alone, zarr3, of_orbax_v1, of_flax_training_checkpoints),
    *(partitioned_variables_of_linen, calls_beside_the_steps_of_multisteps),
)
OF_NNX = (nnx_states, nnx_both_in_one, nnx_pure_dicts_as_items, nnx_sgd_whose_step_is_beside, nnx_ours_in_a_chain)
FOLDERS = {**{make.__name__: make for make in (*OF_ONE_STATE, *OF_NNX)}, **OF_TRANSFORMS}
