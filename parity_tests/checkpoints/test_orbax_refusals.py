"""Folders of Orbax that are damaged, unfinished, or hold what does not carry over: one line, status 2, and nothing written."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import optax
import pytest
import torch

import jaxopt_impl

from ..cli.running import one_line, optparity, subprocess_optparity
from . import orbax_folders as folders
from .test_orbax_folders import converted, given, new

pytestmark = pytest.mark.usefixtures("as_users_have_it")
DAMAGED = "it is no Orbax checkpoint, or a damaged one: "


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Folders to damage copies of."""
    base = tmp_path_factory.mktemp("sound")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for make in (folders.standard, folders.a_file_for_each_array, folders.newest_step, folders.composite_with_prefix_and_zeros):
            make(base / make.__name__)
    return base


def edited(path, **changes):
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def replaced(path, make):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


def one_of(folder, pattern):
    return next(path for path in sorted(folder.rglob(pattern)) if path.is_file())


ARRAY = "params.Dense_0.kernel"
# What is damaged -> which folder, how, and what is said.
DAMAGES = {
    "a missing chunk": ("a_file_for_each_array", lambda path: (path / ARRAY / "0.0").unlink(), f"{DAMAGED}ValueError: NOT_FOUND"),
    "a truncated chunk": ("a_file_for_each_array", lambda path: os.truncate(path / ARRAY / "0.0", 10), "Truncated Zstd-compressed stream"),
    "a missing array": ("a_file_for_each_array", lambda path: shutil.rmtree(path / ARRAY), DAMAGED),
    "an array without its shape": ("a_file_for_each_array", lambda path: (path / ARRAY / ".zarray").unlink(), DAMAGED),
    "a huge shape": (
        "a_file_for_each_array",
        lambda path: edited(path / ARRAY / ".zarray", shape=[300000, 400000]),
        "its arrays are 480,000,",
    ),
    "huge chunks": (
        "a_file_for_each_array",
        lambda path: edited(path / ARRAY / ".zarray", chunks=[300000, 400000]),
        "its arrays are 480,000,",
    ),
    "a truncated manifest": ("standard", lambda path: os.truncate(path / "manifest.ocdbt", 20), DAMAGED),
    "no manifest": ("standard", lambda path: (path / "manifest.ocdbt").unlink(), DAMAGED),
    "truncated data": ("standard", lambda path: [os.truncate(file, 30) for file in (path / "d").iterdir()], DAMAGED),
    "_METADATA is no JSON": ("standard", lambda path: (path / "_METADATA").write_text("{"), DAMAGED),
    "_METADATA is a list": ("standard", lambda path: (path / "_METADATA").write_text("[]"), DAMAGED),
    "_METADATA of other things": ("standard", lambda path: (path / "_METADATA").write_text('{"tree_metadata": {"x": 3}}'), DAMAGED),
    "_METADATA is nested too deep": ("standard", lambda path: (path / "_METADATA").write_text("[" * 100000), DAMAGED),
    "_METADATA is a folder": ("standard", lambda path: replaced(path / "_METADATA", lambda file: file.mkdir()), DAMAGED),
    "_CHECKPOINT_METADATA is no JSON": ("standard", lambda path: (path / "_CHECKPOINT_METADATA").write_bytes(b"\xff{"), DAMAGED),
    "_CHECKPOINT_METADATA is a list": ("standard", lambda path: (path / "_CHECKPOINT_METADATA").write_text("[]"), "is a list"),
    "_CHECKPOINT_METADATA is too deep": ("standard", lambda path: (path / "_CHECKPOINT_METADATA").write_text("[" * 100000), DAMAGED),
    "a pipe as _METADATA": (
        "standard",
        lambda path: replaced(path / "_METADATA", os.mkfifo),
        "_METADATA cannot be read: it is no regular file.",
    ),
    "a pipe as metadata": (
        "standard",
        lambda path: replaced(path / "_CHECKPOINT_METADATA", os.mkfifo),
        "cannot be read: it is no regular file.",
    ),
    "a pipe as data": ("standard", lambda path: replaced(one_of(path, "d/*"), os.mkfifo), "cannot be read: it is no regular file."),
    "a loop of links": (
        "standard",
        lambda path: replaced(path / "d", lambda link: link.symlink_to(link)),
        "Too many levels of symbolic links.",
    ),
    "_METADATA is a loop": (
        "standard",
        lambda path: replaced(path / "_METADATA", lambda link: link.symlink_to(link)),
        "Too many levels of symbolic links.",
    ),
    "an empty folder": ("standard", lambda path: replaced(path, lambda folder: folder.mkdir()), f"{DAMAGED}neither it nor its steps hold"),
    "another folder": ("standard", lambda path: (path / "_METADATA").unlink(), f"{DAMAGED}neither it nor its steps hold"),
    "an empty step": ("newest_step", lambda path: replaced(path / "run" / "100", lambda step: step.mkdir()), "hold a tree of arrays"),
    "a missing item": (
        "composite_with_prefix_and_zeros",
        lambda path: shutil.rmtree(path / "ckpt_00000002" / "params"),
        f"{DAMAGED}its item params is not there, or not whole.",
    ),
    "an item without its metadata": (
        "composite_with_prefix_and_zeros",
        lambda path: (path / "ckpt_00000002" / "params" / "_METADATA").unlink(),
        f"{DAMAGED}its item params is not there, or not whole.",
    ),
    "steps of two names": (
        "composite_with_prefix_and_zeros",
        lambda path: shutil.copytree(path / "ckpt_00000002", path / "best_3"),
        "it has steps of several names, and the newest are ",
    ),
    "an unfinished step": (
        "newest_step",
        lambda path: (
            (path / "run" / "100" / "commit_success.txt").unlink(),
            edited(path / "run" / "100" / "_CHECKPOINT_METADATA", commit_timestamp_nsecs=None),
        ),
        "100 is unfinished: Orbax was still writing it, or was stopped at it.",
    ),
}


@pytest.mark.parametrize("label", DAMAGES)
def test_damaged_folders_are_refused_in_one_line(monkeypatch, capsys, tmp_path, sound, label):
    monkeypatch.chdir(tmp_path)
    which, damage, message = DAMAGES[label]
    shutil.copytree(sound / which, tmp_path / "in")
    damage(tmp_path / "in")
    path = tmp_path / "in" / "run" if (tmp_path / "in" / "run").exists() else tmp_path / "in"
    saved = folders.Saved(path, None, {})
    new(saved)
    one_line(*optparity(monkeypatch, capsys, "convert", *given(saved)), message)
    assert sorted(os.listdir()) == ["in", "like.pt"]


def test_reads_of_other_kinds_of_array_end_too(monkeypatch, tmp_path, sound):
    """In a process of its own: a TrainState has a number beside its arrays, and each kind is read for itself."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sound / "standard", tmp_path / "in")
    os.truncate(tmp_path / "in" / "manifest.ocdbt", 20)
    saved = folders.Saved(tmp_path / "in", None, {})
    new(saved)
    run = subprocess_optparity("convert", *given(saved))
    one_line(run.returncode, run.stdout, run.stderr, DAMAGED)


def test_a_folder_that_is_being_written_is_refused_and_passed_over(monkeypatch, capsys, tmp_path, sound):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sound / "newest_step" / "run", tmp_path / "run")
    (tmp_path / "run" / "100").rename(tmp_path / "run" / "100.orbax-checkpoint-tmp")
    saved = folders.Saved(tmp_path / "run" / "100.orbax-checkpoint-tmp", None, {})
    new(saved)
    one_line(*optparity(monkeypatch, capsys, "convert", *given(saved)), "100.orbax-checkpoint-tmp is unfinished")
    _, out = converted(monkeypatch, capsys, saved._replace(path=tmp_path / "run"))
    assert "Left behind: 100.orbax-checkpoint-tmp." in out


def tree_of(tx, steps=folders.STEPS, **changes):
    params, state = folders.stepped(tx, folders.linen_params(), steps)
    return {"params": params, "opt_state": state, **changes}


def without(tree, *path):
    """A tree of dicts without a node."""
    head, *rest = path
    return {key: without(value, *rest) if key == head else value for key, value in tree.items() if key != head or rest}


def with_other_leaves():
    tree = tree_of(folders.ADAM)
    return {**tree, "params": {**tree["params"], "Dense_0": {"kernel": jnp.ones((5, 5)), "bias": jnp.ones(4)}}}


# What is saved, the optimizer that is said, and what is said of it.
REFUSED = {
    "gathered gradients": (lambda: tree_of(optax.MultiSteps(folders.ADAM, 4).gradient_transformation()), "AdamW", "MultiSteps at "),
    "another optimizer of optax": (lambda: tree_of(folders.ADAM), "SGD", "has the fields count, mu, nu, which are not those of sgd."),
    "another optimizer of ours": (lambda: tree_of(folders.OURS), "SGD", "step, which are not those of sgd"),
    "an optimizer that nobody knows": (lambda: tree_of(optax.adadelta(0.1)), "AdamW", "which are not those of adamw"),
    "no optimizer": (
        lambda: {"params": folders.linen_params()},
        "AdamW",
        "the optimizer's state is not found in it; --optimizer-key is needed.",
    ),
    "moments of other shapes": (with_other_leaves, "AdamW", "no part of it holds what the optimizer's moments in opt_state belong to: "),
    "moments of other leaves": (
        lambda: without(tree_of(folders.ADAM), "params", "Dense_1"),
        "AdamW",
        "no part of it holds what the optimizer's moments in opt_state belong to: ",
    ),
    "another step beside": (
        lambda: tree_of(folders.ADAM, step=7),
        "AdamW",
        "the optimizer has counted 2 steps, and step 7 is beside its state",
    ),
    "no step": (lambda: tree_of(optax.sgd(0.1, 0.9)), "SGD", "this state of sgd holds no count of steps; --step is needed."),
    "steps that torch does not hold": (
        lambda: folders.at_two_steps(jaxopt_impl.sgd(0.1, momentum=0.9), lambda state: state._replace(step=state.step + 5)),
        "SGD",
        "the parameters of a group are at steps 2, 7, and torch's holds none.",
    ),
    "two averages": (
        lambda: tree_of(folders.ADAM, ema=folders.linen_params()),
        "AdamW",
        "the model could be ema or params; --model-key is needed.",
    ),
}


@pytest.mark.parametrize("label", REFUSED)
def test_what_does_not_carry_over_is_refused_in_one_line(monkeypatch, capsys, tmp_path, label):
    monkeypatch.chdir(tmp_path)
    make, optimizer, message = REFUSED[label]
    folders.save(tmp_path / "in", make())
    saved = folders.Saved(tmp_path / "in", None, {}, optimizer, {"momentum": 0.9} if optimizer == "SGD" else {})
    new(saved)
    one_line(*optparity(monkeypatch, capsys, "convert", *given(saved)), message)
    assert sorted(os.listdir()) == ["in", "like.pt"]


def test_what_is_given_agrees_with_the_folder(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    folders.save(tmp_path / "in", tree_of(folders.ADAM, step=7))
    saved = folders.Saved(tmp_path / "in", None, {})
    new(saved)
    for options, message in {
        ("--step", 7): "one step is needed; got 7 (step), 2 ",
        ("--optimizer-key", "state"): "--optimizer-key state: there is no such part; it has opt_state, params, step.",
        (
            "--model-key",
            "opt_state.0.mu.Dense_0",
            "--step",
            2,
        ): "--model-key opt_state.0.mu.Dense_0: the optimizer has moments of Dense_0.bias",
    }.items():
        one_line(*optparity(monkeypatch, capsys, "convert", *given(saved), *options), message)
    one_line(*optparity(monkeypatch, capsys, "convert", tmp_path / "in", "out.pt", "--optimizer", "AdamW"), "--like FILE.pt is needed")
    converted(monkeypatch, capsys, saved, "--step", 2)


def test_ours_is_read_where_the_step_is_given_too(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    folders.save(tmp_path / "in", tree_of(jaxopt_impl.adamw(1e-3)))
    saved = folders.Saved(tmp_path / "in", None, {})
    new(saved)
    one_line(*optparity(monkeypatch, capsys, "convert", *given(saved), "--step", 3), "is at step 2; got --step 3.")
    converted(monkeypatch, capsys, saved, "--step", 2)


def test_state_of_what_torch_does_not_train_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    folders.save(tmp_path / "in", tree_of(folders.ADAM))
    saved, model = folders.Saved(tmp_path / "in", None, {}), folders.torch_model()
    some = [(name, p) for name, p in model.named_parameters() if name != "1.bias"]
    torch.save({"model": model.state_dict(), "optimizer": torch.optim.AdamW(some).state_dict()}, "like.pt")
    one_line(*optparity(monkeypatch, capsys, "convert", *given(saved)), "there is state of 1.bias, in no group of --like like.pt.")
    assert sorted(os.listdir()) == ["in", "like.pt"]
