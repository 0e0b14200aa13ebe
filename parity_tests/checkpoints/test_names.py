"""The names of an optimizer's parameters: told by the file, proved by shapes, or given; never guessed from the order of a model."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from optparity.checkpoints import torch_file
from optparity.checkpoints.checkpoint import Given
from optparity.checkpoints.names import IN_ORDER, spelled_as

from ..cli.running import one_line, optparity
from .layouts import DECAYED, DISTINCT, NAMED, PLAIN, REPEATED, REST, ROW, TRAINER, adamw, flat, marked, ordered, weights, with_buffers

pytestmark = pytest.mark.usefixtures("as_users_have_it")
ADAMW = ("--optimizer", "AdamW")


def read(saved, **given):
    return torch_file.checkpoint(saved, Given("AdamW", **given))


def names_of(saved, **given):
    """The names, or None where they are indices."""
    checkpoint = read(saved, **given)
    return None if checkpoint.by_index else [name for own in checkpoint.names for name in own]


def both(model, optimizer):
    return {"model": model, "optimizer": optimizer}


def without_state(shapes, *names):
    """As of parameters that never had a gradient."""
    found = adamw(shapes)
    for name in names:
        del found["state"][[*shapes].index(name)]
    return found


def test_a_sorted_model_does_not_name_moments():
    """Hugging Face's weights are sorted by name, the optimizer's parameters are not: all shapes are the same."""
    model = {name: weights()[name] for name in sorted(REPEATED)}
    assert names_of(both(model, PLAIN)) is None


@pytest.mark.parametrize("order", [[*DISTINCT], [*DISTINCT][::-1], sorted(DISTINCT)])
def test_shapes_prove_names_in_any_order(order):
    model = {name: weights(DISTINCT)[name] for name in sorted(DISTINCT)}
    assert names_of(both(model, adamw(DISTINCT, order=order))) == order


AMBIGUOUS = {
    "a second tensor of the shape": both({**weights(DISTINCT), "other": marked((5,), 9)}, adamw(DISTINCT)),
    "a second parameter of the shape": both(weights({**DISTINCT, "other": (5,)}), adamw({**DISTINCT, "other": (5,)})),
    "two parameters for one tensor": both({**weights(DISTINCT), "grid": torch.ones(9)}, adamw({**DISTINCT, "other": (5,)})),
    "a buffer of the shape": both({**weights(DISTINCT), "norm.running_mean": marked(ROW, 9)}, adamw(DISTINCT)),
    "a buffer in the place of what is not there": both(
        {**{name: tensor for name, tensor in weights(DISTINCT).items() if name != "norm.weight"}, "norm.running_mean": marked(ROW, 9)},
        adamw(DISTINCT),
    ),
    "a parameter without state": both(weights(DISTINCT), without_state(DISTINCT, "hidden.bias")),
    "an expected shape that is not there": both({**weights(DISTINCT), "hidden.bias": marked((6,), 9)}, adamw(DISTINCT)),
    "no model": {"optimizer": adamw(DISTINCT)},
}


@pytest.mark.parametrize("label", AMBIGUOUS)
def test_what_shapes_do_not_prove_goes_by_index(label):
    missing = ("3",) if label == "a parameter without state" else ()
    assert names_of(AMBIGUOUS[label], missing=missing) is None


def test_integers_and_second_names_are_no_candidates():
    model = weights(DISTINCT)
    others = {"mask": torch.ones(4, dtype=torch.int32), "tied": model["norm.weight"], "flag": torch.ones(4, dtype=torch.bool)}
    assert names_of(both({**model, **others}, adamw(DISTINCT))) == [*DISTINCT]
    assert names_of(both({"tied": model["norm.weight"], **model}, adamw(DISTINCT))) == ["embed.weight", "tied", *[*DISTINCT][2:]]
    assert names_of(both({**model, "equal": model["norm.weight"].clone()}, adamw(DISTINCT))) is None


SPELLINGS = {
    "the same": (["a.w", "b.w"], ["b.w", "a.w", "c"], ["a.w", "b.w"]),
    "DDP": (["a.w", "b.w"], ["module.a.w", "module.b.w"], ["module.a.w", "module.b.w"]),
    "DDP in the optimizer": (["module.a.w"], ["a.w"], ["a.w"]),
    "compiled inside": (["a.0.w", "a.1.w"], ["a.0._orig_mod.w", "a.1._orig_mod.w"], ["a.0._orig_mod.w", "a.1._orig_mod.w"]),
    "DDP of a compiled one": (["a.w"], ["_orig_mod.module.a.w"], ["_orig_mod.module.a.w"]),
    "any prefix": (["a.w", "b.w"], ["net.inner.a.w", "net.inner.b.w", "net.c"], ["net.inner.a.w", "net.inner.b.w"]),
    "any prefix in the optimizer": (["net.a.w", "net.b.w"], ["a.w", "b.w"], ["a.w", "b.w"]),
    "the same before a prefix": (["w", "b"], ["w", "b", "ema.w", "ema.b"], ["w", "b"]),
    "two prefixes": (["w", "b"], ["g.w", "g.b", "d.w", "d.b"], None),
    "two that are one without wrappers": (["a.w"], ["module.a.w", "_orig_mod.a.w"], None),
    "two that become one": (["a.w", "module.a.w"], ["a.w"], None),
    "one is missing": (["a.w", "b.w"], ["a.w", "c.w"], None),
    "only an end of a name": (["w"], ["raw"], None),
}


@pytest.mark.parametrize("label", SPELLINGS)
def test_names_are_found_under_prefixes_that_are_unique(label):
    names, others, expected = SPELLINGS[label]
    assert spelled_as(names, others) == expected


def test_names_that_the_model_has_not_are_kept_and_said():
    checkpoint = read(both(weights({"embed.weight": (7, 4)}), NAMED))
    assert [name for own in checkpoint.names for name in own] == [*REPEATED]
    assert "The model has no tensor for 37 parameters of the optimizer: layers.0.q.weight, " in checkpoint.notes[0]


def test_a_moment_of_another_shape_than_its_name_is_refused():
    model = {**weights(), "layers.0.q.weight": marked((4, 5), 1)}
    with pytest.raises(ValueError, match=r"exp_avg of params\['layers.0.q.weight'\] has shape \(4, 4\); the parameter .* has \(4, 5\)"):
        read(both(model, NAMED))


IN_MODELS_ORDER = {
    "as it is": (both(weights(), PLAIN), [*REPEATED]),
    "buffers of torch's modules": (both(with_buffers(), PLAIN), [*REPEATED]),
    "a buffer that no parameter can be": (both({"grid": torch.ones(9), **weights()}, PLAIN), [*REPEATED]),
    "a parameter without state": (both(weights(DISTINCT), without_state(DISTINCT, "scale")), [*DISTINCT]),
}


@pytest.mark.parametrize("label", IN_MODELS_ORDER)
def test_the_models_order_where_the_user_says_so(label):
    saved, expected = IN_MODELS_ORDER[label]
    missing = ("scale",) if "without state" in label else ()
    assert names_of(saved, names=IN_ORDER, missing=missing) == expected


def listed(folder, content):
    (folder / "names.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / "names.json"


@pytest.mark.parametrize("content", [DECAYED + REST, [DECAYED, REST]])
def test_names_from_a_file(tmp_path, content):
    assert names_of(both(weights(), TRAINER), names=listed(tmp_path, content)) == DECAYED + REST
    prefixed = {f"module.{name}": tensor for name, tensor in weights().items()}
    found = names_of(both(prefixed, TRAINER), names=listed(tmp_path, content))
    assert found == [f"module.{name}" for name in DECAYED + REST]


def test_a_second_name_of_tied_tensors_is_the_first(tmp_path):
    model = weights(DISTINCT)
    names = ["lm_head.weight", *[*DISTINCT][1:]]
    checkpoint = read(both({**model, "lm_head.weight": model["embed.weight"]}, adamw(DISTINCT)), names=listed(tmp_path, names))
    assert checkpoint.names[0] == (*DISTINCT,)
    assert "lm_head.weight is embed.weight" in checkpoint.notes[0]


LAYERS = {f"{i}.weight": (4, 4) for i in range(12)}


def swapped(names, a, b):
    return [b if name == a else a if name == b else name for name in names]


REFUSED = {
    "sorted names": (
        both({name: weights()[name] for name in sorted(REPEATED)}, PLAIN),
        "model",
        "--names model: the names in it are sorted, so that the order of its modules is lost; --names FILE.json is needed.",
    ),
    "10 before 2": (
        both({name: weights(LAYERS)[name] for name in sorted(LAYERS)}, adamw(LAYERS)),
        "model",
        "--names model: the names in it are sorted",
    ),
    "a bias before its weight": (
        both(weights({"a.bias": (3,), "a.weight": (3,)}), adamw({"a.bias": (3,), "a.weight": (3,)})),
        "model",
        "--names model: the names in it are sorted",
    ),
    "another order of shapes": (
        both(weights(), TRAINER),
        "model",
        "--names model: its 38 tensors have not in their order the shapes of the",
    ),
    "a buffer like a parameter": (
        both({"embed.grid": marked((7, 4), 9), **weights()}, PLAIN),
        "model",
        "--names model: the shapes do not tell whether embed.grid or embed.weight is a buffer; --names FILE.json is needed.",
    ),
    "no model in order": (PLAIN, "model", "--names model: the file holds no model; --names FILE.json is needed."),
    "names that are told": (both(weights(), NAMED), "model", "--names: the file tells the names of the optimizer's parameters itself."),
    "keys that are names": (
        both(weights(), flat(PLAIN, [*REPEATED])),
        "model",
        "--names: the file tells the names of the optimizer's parameters itself.",
    ),
    "no file": (both(weights(), PLAIN), None, "--names names.json: it cannot be read: No such file or directory."),
    "no JSON": (both(weights(), PLAIN), "{", "--names names.json: it is no JSON: "),
    "nested too deep": (both(weights(), PLAIN), "[" * 100_000, "--names names.json: it is no JSON: "),
    "a number": (
        both(weights(), PLAIN),
        7,
        "--names names.json: a list of 38 names is needed, or a list of such lists, one for each group.",
    ),
    "too few": (both(weights(), PLAIN), [*REPEATED][1:], "--names names.json: a list of 38 names is needed"),
    "numbers": (both(weights(), PLAIN), [7] * 38, "--names names.json: a list of 38 names is needed"),
    "lists of other lengths": (
        both(weights(), TRAINER),
        [REST, DECAYED],
        "--names names.json: the groups have [26, 12] parameters; got lists of",
    ),
    "a name twice": (
        both(weights(), PLAIN),
        ["a"] * 38,
        "--names names.json: 'a' is there 38 times; each parameter has a name of its own.",
    ),
    "a name that the model has not": (
        both(weights(), PLAIN),
        ["other", *[*REPEATED][1:]],
        "--names names.json: the model has no tensor 'other'.",
    ),
    "a shape that its moments have not": (
        both(weights(), PLAIN),
        swapped(REPEATED, "embed.weight", "layers.0.q.weight"),
        "--names names.json: layers.0.q.weight has shape (4, 4), but its moments have (7, 4).",
    ),
}


@pytest.mark.parametrize("label", REFUSED)
def test_names_that_are_not_those_of_the_parameters_are_refused(monkeypatch, capsys, tmp_path, label):
    monkeypatch.chdir(tmp_path)
    saved, content, message = REFUSED[label]
    torch.save(saved, "in.pt")
    if content not in (None, "model"):
        listed(tmp_path, content)
    names = "model" if content == "model" else "names.json"
    one_line(*optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAMW, "--names", names), message)
    assert not Path("out.safetensors").exists()


def test_safetensors_have_no_order_of_modules(monkeypatch, capsys, tmp_path):
    """Whatever their names are: nothing in these shows that they are sorted."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    shapes = {"k.weight": (4, 4), "q.weight": (4, 4)}
    safetensors.numpy.save_file({name: tensor.numpy() for name, tensor in weights(shapes).items()}, "in/model.safetensors")
    torch.save(adamw(shapes, order=["q.weight", "k.weight"]), "in/optimizer.pt")
    result = optparity(monkeypatch, capsys, "convert", "in", "out.safetensors", *ADAMW, "--names", "model")
    one_line(*result, "in: --names model: the names in it are sorted, so that the order of its modules is lost")


@pytest.mark.parametrize("option", ["--names", "--model-key", "--optimizer-key"])
def test_a_file_of_ours_has_names_of_its_own(monkeypatch, capsys, tmp_path, option):
    monkeypatch.chdir(tmp_path)
    torch.save(both(weights(DISTINCT), adamw(DISTINCT)), "in.pt")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "out.safetensors", *ADAMW)[0] == 0
    one_line(
        *optparity(monkeypatch, capsys, "convert", "out.safetensors", "back.pt", option, "model"), f"{option} is for a torch checkpoint"
    )


def test_like_takes_names_too(monkeypatch, capsys, tmp_path):
    """Arrays without groups, by name: the like's parameters get their names from the user, or are refused with the way to give them."""
    monkeypatch.chdir(tmp_path)
    saved = both(ordered(weights()), NAMED)
    torch.save(saved, "in.pt")
    torch.save(both(weights(), PLAIN), "like.pt")
    assert optparity(monkeypatch, capsys, "convert", "in.pt", "whole.safetensors", *ADAMW)[0] == 0
    safetensors.numpy.save_file(safetensors.numpy.load_file("whole.safetensors"), "bare.safetensors")
    command = ("convert", "bare.safetensors", "back.pt", *ADAMW, "--like", "like.pt")
    one_line(*optparity(monkeypatch, capsys, *command), "in no group. --like's file does not name its parameters: --names FILE.json does")
    assert optparity(monkeypatch, capsys, *command, "--names", "model")[0] == 0
    state = torch.load("back.pt", weights_only=True)["optimizer"]["state"]
    assert [int(own["exp_avg"].flatten()[0]) for own in state.values()] == list(range(1, 39))


KEYS = {
    "dotted": ({"a.b": {"c": weights()}, "o": {"x.y": [NAMED, PLAIN]}}, "a.b.c", "o.x.y.0", None),
    "nothing there": (both(weights(), NAMED), "x", None, "--model-key x: nothing is there; one of model."),
    "no model there": (
        both(weights(), NAMED),
        "optimizer",
        None,
        "--model-key optimizer: no state_dict of a model is there, a dict of tensors; one",
    ),
    "a number there": ({**both(weights(), NAMED), "epoch": 3}, "epoch", None, "--model-key epoch: no state_dict of a model is there"),
    "no optimizer there": (
        both(weights(), NAMED),
        None,
        "model",
        "--optimizer-key model: no optimizer's state_dict is there; one of optimizer.",
    ),
    "two of one spelling": (
        {"a.b": weights(), "a": {"b": weights()}, "optimizer": NAMED},
        "a.b",
        None,
        "--model-key a.b: two paths are spelled so; one of a.b, a.b.",
    ),
    "of two optimizers one model": (
        {"model": weights(), "other": weights(), "o": [NAMED, PLAIN]},
        None,
        "o.0",
        "it holds 2 models; --model-key is needed, one of model, other.",
    ),
}


@pytest.mark.parametrize("label", KEYS)
def test_keys_that_are_given(label):
    saved, model, optimizer, message = KEYS[label]
    if message is None:
        assert names_of(saved, model_key=model, optimizer_key=optimizer) == [*REPEATED]
    else:
        with pytest.raises(ValueError, match=message.replace(".", r"\.")):
            read(saved, model_key=model, optimizer_key=optimizer)


def test_values_tell_that_a_proved_name_is_right():
    checkpoint = read(both(weights(DISTINCT), adamw(DISTINCT, order=[*DISTINCT][::-1])))
    for name, own in zip(checkpoint.names[0], checkpoint.records[0].state, strict=True):
        assert np.ravel(own["exp_avg"])[0] == [*DISTINCT].index(name) + 1
