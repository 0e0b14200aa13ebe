"""`optparity convert` between its three formats: every bit there and back, and under which names."""

import re

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
import torch

import torch_ref
from optparity.registry import OPTIMIZERS

from ..cli.running import optparity, subprocess_optparity
from ..interop.states import altered, state_dicts_same
from .examples import ADAM, OUTPUTS, STATE, arrays_and_facts, changed, trained

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def two_groups(model):
    decayed = [(name, p) for name, p in model.named_parameters() if p.ndim > 1]
    rest = [(name, p) for name, p in model.named_parameters() if p.ndim == 1]
    return [{"params": decayed, "weight_decay": 0.1, "lr": torch.tensor(0.1)}, {"params": rest, "betas": (0.8, 0.9), "initial_lr": 0.5}]


CHECKPOINTS = {
    "Adam": lambda: trained(torch.optim.Adam),
    "AdamW, named, amsgrad": lambda: trained(lambda p: torch.optim.AdamW(p, amsgrad=True), groups=lambda m: m.named_parameters()),
    "AdamW, two groups": lambda: trained(torch.optim.AdamW, groups=two_groups),
    "Adam, bfloat16": lambda: trained(torch.optim.Adam, dtype=torch.bfloat16),
    "Adam, float64": lambda: trained(torch.optim.Adam, dtype=torch.float64),
    "Adam, accumulators": lambda: trained(lambda p: torch_ref.Adam(p, accumulator_dtype="float32"), dtype=torch.bfloat16),
    "Adagrad": lambda: trained(torch.optim.Adagrad),
    "AdaGrad": lambda: trained(torch_ref.AdaGrad),
    "RMSprop, all": lambda: trained(lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True)),
    "SGD": lambda: trained(torch.optim.SGD),
    "SGD, momentum": lambda: trained(lambda p: torch.optim.SGD(p, momentum=0.9)),
    "Momentum": lambda: trained(torch_ref.Momentum),
    "Adam, not begun": lambda: trained(torch.optim.Adam, steps=0),
    "Adam, unequal steps": lambda: altered(trained(torch.optim.Adam), {"optimizer__state__1__step": torch.tensor(1.0)}),
    "Adam, alone": lambda: trained(torch.optim.Adam)["optimizer"],
}


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("label", CHECKPOINTS)
def test_there_and_back_is_every_bit(monkeypatch, capsys, tmp_path, label, out):
    saved = CHECKPOINTS[label]()
    torch.save(saved, tmp_path / "in.pt")
    status, shown, err = optparity(
        *(monkeypatch, capsys, "convert", tmp_path / "in.pt", tmp_path / out, "--optimizer", label.split(",")[0]),
        *(("--step", 3) if label in ("SGD", "SGD, momentum", "Momentum") else ()),
    )
    assert (status, err) == (0, "")
    assert "group 0" in shown
    assert optparity(monkeypatch, capsys, "convert", tmp_path / out, tmp_path / "back.pt")[0] == 0
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    state_dicts_same(back, saved)
    if "model" in saved:
        assert list(back["model"]) == list(saved["model"])
        assert back["model"]._metadata == saved["model"]._metadata
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.pt", out, "back.pt"])


def test_orbax_to_safetensors_and_round(monkeypatch, capsys, tmp_path):
    """All three formats in a ring; the step of SGD, which torch does not hold, is told where it is left."""
    torch.save(CHECKPOINTS["SGD, momentum"](), tmp_path / "a.pt")
    assert optparity(monkeypatch, capsys, "convert", tmp_path / "a.pt", tmp_path / "b", "--optimizer", "sgd", "--step", 3)[0] == 0
    assert optparity(monkeypatch, capsys, "convert", tmp_path / "b", tmp_path / "c.safetensors")[0] == 0
    assert safetensors.numpy.load_file(tmp_path / "c.safetensors")["optimizer.step"] == 3
    assert optparity(monkeypatch, capsys, "convert", tmp_path / "c.safetensors", tmp_path / "d")[0] == 0
    status, out, _ = optparity(monkeypatch, capsys, "convert", tmp_path / "d", tmp_path / "e.pth")
    assert status == 0
    assert "torch's SGD holds no step: give --step 3 on the way back." in out
    state_dicts_same(*(torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "e.pth")))


def test_names_are_the_models_or_the_groups_or_indices(monkeypatch, capsys, tmp_path):
    linear = torch.nn.Linear(2, 2)
    apart = torch_ref.AdaGrad([{"params": [linear.bias]}, {"params": [linear.weight]}])
    for saved, name, by_index in [
        (trained(torch.optim.Adam), "2", True),  # the model has buffers
        (trained(torch.optim.Adam, groups=lambda model: model.named_parameters()), "norm.weight", False),
        ({"model": linear.state_dict(), "optimizer": torch_ref.AdaGrad(linear.parameters()).state_dict()}, "weight", False),
        ({"model": linear.state_dict(), "optimizer": apart.state_dict()}, "weight", False),  # by its shape, in another order than the model
    ]:
        torch.save(saved, tmp_path / "a.pt")
        kind = "AdaGrad" if "weight" in saved["model"] else "Adam"
        given = ("convert", tmp_path / "a.pt", tmp_path / "b.safetensors", "--optimizer", kind, "--force")
        status, out, _ = optparity(monkeypatch, capsys, *given)
        assert status == 0
        assert ("named by their index" in out) == by_index
        field = "sum" if kind == "AdaGrad" else "exp_avg"
        assert f"optimizer.{field}.{name}" in safetensors.numpy.load_file(tmp_path / "b.safetensors")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_optparity_train_writes_is_read_and_read_again_by_it(monkeypatch, capsys, tmp_path, optimizer):
    """The torch side of a run becomes its JAX side and the other way round, bit for bit, and the run goes on from them."""
    from optparity.training.run import Run, Training

    training = Training(Run("cruncher", optimizer=optimizer), tmp_path / "run")
    for _ in training.go(3, checkpoint_every=3):
        pass
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    new_jax, new_torch = tmp_path / "new" / "jax", tmp_path / "new" / "torch.pt"
    name, in_order = type(training.trainers[0].optimizer).__name__, ("--names", "model", "--step", 3)
    status, _, err = optparity(monkeypatch, capsys, "convert", folder / "torch.pt", new_jax, "--optimizer", name, *in_order)
    assert (status, err) == (0, "")
    given = ("--like", folder / "torch.pt", "--optimizer", optimizer, "--names", "model")
    status, _, err = optparity(monkeypatch, capsys, "convert", folder / "jax", new_torch, *given)
    assert (status, err) == (0, "")
    state_dicts_same(*(torch.load(path, weights_only=True) for path in (new_torch, folder / "torch.pt")))
    again = Training(Run("cruncher", optimizer=optimizer), tmp_path / "again")
    for trainer in again.trainers:
        trainer.load(tmp_path / "new")
    for old, new in zip(training.trainers, again.trainers, strict=True):
        for key, array in old.arrays().items():
            np.testing.assert_array_equal(
                array.view(np.uint8) if array.ndim else array, new.arrays()[key].view(np.uint8) if array.ndim else new.arrays()[key]
            )


@pytest.mark.parametrize("out", OUTPUTS)
def test_names_that_two_models_share_lose_nothing(monkeypatch, capsys, tmp_path, out):
    """Two groups, each with a parameter named w: by index, and every moment comes back."""
    monkeypatch.chdir(tmp_path)
    generator, discriminator = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    groups = [{"params": [("w", generator)]}, {"params": [("w", discriminator)]}]
    optimizer = torch.optim.Adam(groups)
    generator.grad, discriminator.grad = torch.full((3,), 2.0), torch.full((3,), 3.0)
    optimizer.step()
    torch.save(optimizer.state_dict(), "in.pt")
    status, shown, _ = optparity(monkeypatch, capsys, "convert", "in.pt", out, *ADAM)
    assert status == 0
    assert "Parameters are named by their index" in shown
    assert optparity(monkeypatch, capsys, "convert", out, "back.pt")[0] == 0
    back = torch.load("back.pt", weights_only=True)["state"]
    for index, expected in optimizer.state_dict()["state"].items():
        for field, tensor in expected.items():
            assert torch.equal(back[index][field], tensor)


def test_a_model_whose_names_are_numbers(monkeypatch, capsys, tmp_path):
    """Names that look like the indices of other parameters."""
    monkeypatch.chdir(tmp_path)
    parameters = {"1": torch.nn.Parameter(torch.ones(4)), "0": torch.nn.Parameter(torch.ones(3))}
    optimizer = torch.optim.Adam(list(parameters.values()))
    for p in parameters.values():
        p.grad = torch.ones_like(p)
    optimizer.step()
    model = {**{name: p.detach() for name, p in parameters.items()}, "buffer": torch.ones(2)}
    torch.save({"model": model, "optimizer": optimizer.state_dict()}, "in.pt")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAM)[0] == 0
    assert optparity(monkeypatch, capsys, "convert", "out.safetensors", "back.pt")[0] == 0
    assert torch.load("back.pt", weights_only=True)["optimizer"]["state"][0]["exp_avg"].shape == (4,)


def test_like_a_scheduled_run(monkeypatch, capsys, tmp_path):
    """A checkpoint without groups takes those of a run that a scheduler drove; and it is said which file is wrong."""
    monkeypatch.chdir(tmp_path)
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([("w", p)], lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.StepLR(optimizer, 5)
    p.grad = torch.ones(3)
    optimizer.step()
    torch.save({"model": {"w": p.detach()}, "optimizer": optimizer.state_dict()}, "in.pt")
    sgd = ("--optimizer", "SGD")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "whole.safetensors", *sgd, "--step", 1)[0] == 0
    arrays, _ = arrays_and_facts("whole.safetensors")
    safetensors.numpy.save_file(arrays, "bare.safetensors")
    assert optparity(monkeypatch, capsys, "convert", "bare.safetensors", "back.pt", *sgd, "--like", "in.pt")[0] == 0
    back = torch.load("back.pt", weights_only=True)["optimizer"]
    assert torch.equal(back["state"][0]["momentum_buffer"], torch.ones(3))
    assert back["param_groups"] == optimizer.state_dict()["param_groups"]
    for arguments, message in [
        (("bare.safetensors", "other.pt", *sgd, "--like", "none.pt"), "bare.safetensors: --like none.pt: it cannot be read: No such file"),
        (("in.pt", "other", *sgd, "--step", 1, "--like", "in.pt"), "in.pt: --like is for a checkpoint without torch's groups"),
        (
            ("whole.safetensors", "other.pt", "--missing", "x"),
            "whole.safetensors: --missing x: no parameter has this name; one of w is needed.",
        ),
    ]:
        status, _, err = optparity(monkeypatch, capsys, "convert", *arguments)
        assert status == 2
        assert err.startswith(f"optparity: {message}")
        assert err.count("\n") == 1


@pytest.mark.parametrize("step", [3, np.int32(3), np.asarray(3), jnp.asarray(3)], ids=lambda step: type(step).__name__)
def test_orbax_folders_of_other_programs_are_read(monkeypatch, capsys, tmp_path, step):
    """They hold jax.Array, and numbers; what is beside is left behind, and said."""
    monkeypatch.chdir(tmp_path)
    linear = torch.nn.Linear(3, 2)
    torch.save({"model": linear.state_dict(), "optimizer": torch.optim.Adam(linear.parameters()).state_dict()}, "new.pt")
    model = {"weight": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(2)}
    tree = {"model": model, "optimizer": {"step": step, "exp_avg": model, "exp_avg_sq": model}}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "in", tree)
        checkpointer.save(tmp_path / "noted", {**tree, "note": "mine"})
    like = (*ADAM, "--like", "new.pt", "--names", "model")
    assert optparity(monkeypatch, capsys, "convert", "in", "out.pt", *like)[0] == 0
    back = torch.load("out.pt", weights_only=True)["optimizer"]["state"]
    assert torch.equal(back[0]["exp_avg"], torch.arange(6.0).reshape(2, 3))
    assert back[1]["step"] == 3
    run = subprocess_optparity("convert", "noted", "other.pt", *like)
    assert (run.returncode, run.stderr) == (0, "")
    assert "Left behind: note." in run.stdout


def test_a_frozen_group_of_sgd_comes_back(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    a, b = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([{"params": [("a", a)]}, {"params": [("b", b)]}], lr=0.1, momentum=0.9)
    a.grad = torch.ones(3)
    optimizer.step()
    torch.save(optimizer.state_dict(), "in.pt")
    given = ("--optimizer", "SGD", "--step", 3, "--missing", "b")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *given)[0] == 0
    assert optparity(monkeypatch, capsys, "convert", "out.safetensors", "back.pt")[0] == 0
    assert torch.equal(torch.load("back.pt", weights_only=True)["state"][0]["momentum_buffer"], torch.ones(3))


def test_a_parameter_without_state_is_carried_where_it_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    saved = changed(**{STATE: None})
    torch.save(saved, "in.pt")
    for out in OUTPUTS:
        assert optparity(monkeypatch, capsys, "convert", "in.pt", out, *ADAM, "--missing", "a.bias")[0] == 0
        assert optparity(monkeypatch, capsys, "convert", out, "back.pt", "--force")[0] == 0
        state_dicts_same(torch.load("back.pt", weights_only=True), saved)


@pytest.mark.parametrize("named", [True, False])
def test_missing_takes_what_the_message_named(monkeypatch, capsys, tmp_path, named):
    monkeypatch.chdir(tmp_path)
    saved = trained(torch.optim.Adam, groups=lambda model: model.named_parameters() if named else model.parameters())
    torch.save(altered(saved, {STATE: None}), "in.pt")
    _, _, err = optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAM)
    (called,) = re.findall(r"(params\[.*?\]) has no state", err)
    assert called == ("params['a.bias']" if named else "params[1]")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAM, "--missing", called)[0] == 0
    assert optparity(monkeypatch, capsys, "convert", "out.safetensors", "back.pt")[0] == 0
    state_dicts_same(torch.load("back.pt", weights_only=True), saved)


def test_what_is_which_is_shown_before_anything_is_written(monkeypatch, capsys, tmp_path):
    """By what told it: the groups, shapes, the caller, or nothing. Without a second name nothing is written."""
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    named, nameless = torch.optim.Adam(model.named_parameters()), torch.optim.Adam(model.parameters())
    square = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    for file, content in {
        "named.pt": (model, named),
        "shapes.pt": (model, nameless),
        "index.pt": (square, torch.optim.Adam(square.parameters())),
    }.items():
        torch.save({"model": content[0].state_dict(), "optimizer": stepped(*content).state_dict()}, file)
    for arguments, line in [
        (["named.pt"], "0.weight (4, 3) params[0] as it is param_names"),
        (["shapes.pt"], "1.bias (2,) params[3] as it is shape"),
        (["index.pt"], "2 (3, 3) params[2] as it is index"),
        (["index.pt", "--names", "model"], "1.weight (3, 3) params[2] as it is --names"),
    ]:
        before = sorted(tmp_path.iterdir())
        status, out, err = optparity(monkeypatch, capsys, "convert", *arguments, "--show", "--optimizer", "Adam")
        assert (status, err) == (0, "")
        assert line in [" ".join(row.split()) for row in out.splitlines()]
        assert sorted(tmp_path.iterdir()) == before
    status, out, _ = optparity(monkeypatch, capsys, "convert", "named.pt", "out.safetensors", "--show", "--optimizer", "Adam")
    assert status == 0
    assert "0.weight (4, 3) params[0] as it is param_names" in [" ".join(row.split()) for row in out.splitlines()]
    assert (tmp_path / "out.safetensors").is_file()


def stepped(model, optimizer):
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    return optimizer
