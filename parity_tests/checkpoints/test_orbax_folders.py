"""Folders that people have from JAX, to torch and back: every bit of the model and of each moment, at its parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import linen

from optparity._arrays import to_numpy
from optparity.interop import Matching, from_torch, weights_from_torch
from optparity.interop.leaves import Leaves
from optparity.parity.bits import differing

from ..cli.running import one_line, optparity, subprocess_optparity
from . import orbax_folders as folders

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def new(saved, model=None):
    """A checkpoint of torch that has not begun, of the same model and optimizer; its values are others."""
    model = folders.torch_model() if model is None else model
    optimizer = getattr(torch.optim, saved.optimizer)(list(model.named_parameters()), **saved.options)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "like.pt")


def given(saved):
    return (saved.path, "out.pt", "--optimizer", saved.optimizer, "--like", "like.pt", *saved.arguments)


def converted(monkeypatch, capsys, saved, *more, model=None):
    """What the command makes of it, and what it says."""
    new(saved, model)
    status, out, err = optparity(monkeypatch, capsys, "convert", *given(saved), *more)
    assert (status, err) == (0, ""), err
    return torch.load("out.pt", weights_only=True), out


def moments_by_name(optimizer, field):
    (group,) = optimizer["param_groups"]
    name_of = dict(zip(group["params"], group["param_names"], strict=True))
    return {name_of[index]: to_numpy(state[field]) for index, state in optimizer["state"].items()}


def same(got, expected):
    """Arrays by name, every bit."""
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        mine, theirs = np.asarray(got[name]), np.asarray(array)
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), name
        assert not differing(mine, theirs).any(), name


@pytest.mark.parametrize("label", folders.FOLDERS)
def test_every_moment_is_at_its_parameter(monkeypatch, capsys, tmp_path, label):
    monkeypatch.chdir(tmp_path)
    saved = folders.FOLDERS[label](tmp_path / "in")
    found, out = converted(monkeypatch, capsys, saved)
    optimizer = found.get("optimizer", found)
    for field, tree in saved.moments.items():
        same(moments_by_name(optimizer, field), folders.by_name(tree))
    for state in optimizer["state"].values():
        assert state.keys() - {"step"} == saved.moments.keys()
        assert state.get("step", saved.step) == saved.step
    if "model" in found:
        same({name: to_numpy(tensor) for name, tensor in found["model"].items()}, folders.by_name(saved.params))
        same(Leaves(weights_from_torch(found["model"], saved.params)).by_path, Leaves(saved.params).by_path)
    for name in saved.left:
        assert name in out.partition("Left behind: ")[2]
    matching = Matching(saved.params, folders.torch_model())
    back = from_torch(optimizer, saved.params, optimizer=saved.optimizer, matching=matching, step=saved.step, missing=saved.missing)
    for field, tree in saved.moments.items():
        there = Leaves(getattr(back.state, field)).by_path
        same({path: leaf for path, leaf in there.items() if path not in saved.missing}, Leaves(tree).by_path)
    assert back.state.step == (saved.step or 0)


def test_shards_of_other_devices_are_read(monkeypatch, tmp_path):
    """In a process that has one device."""
    monkeypatch.chdir(tmp_path)
    saved = folders.sharded(tmp_path / "in")
    new(saved)
    run = subprocess_optparity("convert", *given(saved), XLA_FLAGS="")
    assert (run.returncode, run.stderr) == (0, "")
    found = torch.load("out.pt", weights_only=True)["optimizer"]
    same(moments_by_name(found, "exp_avg"), folders.by_name(saved.moments["exp_avg"]))


class WithStatistics(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Dense(4, name="fc1")(x)
        return linen.Dense(3, name="fc2")(linen.BatchNorm(use_running_average=True, name="norm")(x))


def test_statistics_beside_the_parameters_are_buffers_in_torch(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    variables = WithStatistics().init(jax.random.key(0), jnp.ones((1, 3)))
    statistics = folders.valued(variables["batch_stats"], 50)
    params, state = folders.stepped(optax.adamw(1e-3), variables["params"])
    folders.save(tmp_path / "in", {"params": params, "batch_stats": statistics, "opt_state": state, "step": folders.STEPS})
    model = torch.nn.Sequential()
    for name, module in (("fc1", torch.nn.Linear(3, 4)), ("norm", torch.nn.BatchNorm1d(4)), ("fc2", torch.nn.Linear(4, 3))):
        model.add_module(name, module)
    saved = folders.Saved(tmp_path / "in", params, folders.adam_moments(state[0]))
    found, out = converted(monkeypatch, capsys, saved, model=model)
    same({"mean": to_numpy(found["model"]["norm.running_mean"])}, {"mean": statistics["norm"]["mean"]})
    same({"var": to_numpy(found["model"]["norm.running_var"])}, {"var": statistics["norm"]["var"]})
    same({"scale": to_numpy(found["model"]["norm.weight"])}, {"scale": params["norm"]["scale"]})
    same({"mu": moments_by_name(found["optimizer"], "exp_avg")["norm.bias"]}, {"mu": state[0].mu["norm"]["bias"]})
    assert "As in --like, since JAX does not hold it: norm.num_batches_tracked." in out
    assert list(found["model"]) == list(model.state_dict())


@pytest.mark.parametrize("kernels", ["transposed", "same"])
def test_how_square_kernels_lie_is_asked(monkeypatch, capsys, tmp_path, kernels):
    monkeypatch.chdir(tmp_path)
    params, state = folders.stepped(optax.adamw(1e-3), {"a": {"kernel": jnp.ones((3, 3))}, "b": {"kernel": jnp.ones((3, 2))}})
    folders.save(tmp_path / "in", {"params": params, "opt_state": state})
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3, bias=False), "b": torch.nn.Linear(3, 2, bias=False)})
    saved = folders.Saved(tmp_path / "in", params, folders.adam_moments(state[0]))
    new(saved, model)
    one_line(*optparity(monkeypatch, capsys, "convert", *given(saved)), "--square-kernels transposed says that they are Flax's")
    found, _ = converted(monkeypatch, capsys, saved, "--square-kernels", kernels, model=model)
    for name, array in (("a", state[0].mu["a"]["kernel"]), ("b", state[0].mu["b"]["kernel"])):
        expected = array.T if (name, kernels) != ("a", "same") else array
        same({name: moments_by_name(found["optimizer"], "exp_avg")[f"{name}.weight"]}, {name: expected})


def test_square_kernels_are_of_jax(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    new(folders.Saved(tmp_path, None, {}))
    given = ("like.pt", "out", "--optimizer", "AdamW", "--square-kernels", "same")
    one_line(*optparity(monkeypatch, capsys, "convert", *given), "--square-kernels is for a checkpoint of JAX.")


def two_optimizers(folder):
    """As a GAN has them: two states of one shape, and an average of the first model."""
    parts = {}
    for i, name in enumerate(("generator", "critic")):
        params, state = folders.stepped(optax.adamw(1e-3), folders.valued(folders.linen_params(), 100 * i))
        parts[name] = {"params": params, "opt_state": state}
    folders.save(folder, {**parts, "ema": parts["generator"]["params"]})
    return parts


def test_candidates_are_named_and_one_is_taken_by_its_key(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    parts = two_optimizers(tmp_path / "in")
    state = parts["critic"]["opt_state"]
    saved = folders.Saved(tmp_path / "in", parts["critic"]["params"], folders.adam_moments(state[0]))
    new(saved)
    message = "the optimizer's state could be critic.opt_state or generator.opt_state; --optimizer-key is needed."
    one_line(*optparity(monkeypatch, capsys, "convert", *given(saved)), message)
    key = ("--optimizer-key", "critic.opt_state")
    message = "the model could be critic.params or ema or generator.params; --model-key is needed."
    one_line(*optparity(monkeypatch, capsys, "convert", *given(saved), *key), message)
    found, out = converted(monkeypatch, capsys, saved, *key, "--model-key", "critic.params")
    same(moments_by_name(found["optimizer"], "exp_avg"), folders.by_name(state[0].mu))
    same({name: to_numpy(tensor) for name, tensor in found["model"].items()}, folders.by_name(saved.params))
    assert "Left behind: ema, generator." in out


def test_the_order_of_torchs_groups_is_not_trusted(monkeypatch, capsys, tmp_path):
    """An optimizer of nameless parameters says nothing of which is which; --names does."""
    monkeypatch.chdir(tmp_path)
    saved = folders.standard(tmp_path / "in")
    model = folders.torch_model()
    torch.save({"model": model.state_dict(), "optimizer": torch.optim.AdamW(model.parameters()).state_dict()}, "like.pt")
    message = "--like like.pt: a model is needed, and the names of its parameters: of an optimizer of named_parameters(), or by --names."
    one_line(*optparity(monkeypatch, capsys, "convert", *given(saved)), message)
    assert optparity(monkeypatch, capsys, "convert", *given(saved), "--names", "model")[0] == 0
    state = torch.load("out.pt", weights_only=True)["optimizer"]["state"]
    expected = folders.by_name(saved.moments["exp_avg"])
    same({name: to_numpy(state[i]["exp_avg"]) for i, (name, _) in enumerate(model.named_parameters())}, expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_parts_of_a_partition_keep_their_steps(monkeypatch, capsys, tmp_path, groups):
    monkeypatch.chdir(tmp_path)
    folders.save(
        tmp_path / "in", folders.at_two_steps(optax.adamw(1e-3), lambda state: (state[0]._replace(count=state[0].count + 5), *state[1:]))
    )
    model = folders.torch_model()
    named = dict(model.named_parameters())
    late = [[(name, p) for name, p in named.items() if (name[0] == "2") == last] for last in (False, True)]
    own = [{"params": each} for each in (late if groups == 2 else [late[0] + late[1]])]
    torch.save({"model": model.state_dict(), "optimizer": torch.optim.AdamW(own).state_dict()}, "like.pt")
    assert optparity(monkeypatch, capsys, "convert", *given(folders.Saved(tmp_path / "in", None, {})))[0] == 0
    back = torch.load("out.pt", weights_only=True)["optimizer"]
    name_of = {i: name for group in back["param_groups"] for i, name in zip(group["params"], group["param_names"], strict=True)}
    steps = {name_of[i]: state["step"].item() for i, state in back["state"].items()}
    assert steps == {name: 7 if name[0] == "2" else 2 for name in named}


def test_float64_is_carried_where_jax_has_none(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    with jax.enable_x64(True):
        state = folders.train_state(dtype="float64")
        folders.save(tmp_path / "in", state)
    saved = folders.adamw_saved(tmp_path / "in", state)
    found, _ = converted(monkeypatch, capsys, saved)
    same(moments_by_name(found["optimizer"], "exp_avg_sq"), folders.by_name(saved.moments["exp_avg_sq"]))
    same({name: to_numpy(tensor) for name, tensor in found["model"].items()}, folders.by_name(saved.params))
    assert found["model"]["0.weight"].dtype == torch.float64
