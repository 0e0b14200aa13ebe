"""Two traces: where they part, by what, and what cannot be told; and what an optimizer makes of recorded gradients."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from optparity import Recorder, recorded
from optparity.traces.diff import Tolerance, diff
from optparity.traces.reading import Trace, traces
from optparity.traces.recorder import STEPS
from optparity.traces.replay import replay
from optparity.versus.course import Place
from optparity.versus.factories import Named

from ..cli.running import one_line, optparity
from ..sampling import EXHAUSTIVE
from . import train_jax, train_torch
from .digits_run import BEGINS

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def read(folder) -> Trace:
    return next(iter(traces(Path(folder)).values()))


def write(folder, change=lambda stage, step, x: x, steps=6, names: Callable[[str], Any] = str, transposed=False, **options) -> Trace:
    """A run; `change` may alter what it has at a stage and step."""
    rng = np.random.default_rng(0)
    with Recorder(folder, **options) as recorder:
        for step in range(1, steps + 1):
            found = {}
            for stage in ("batch", "gradients", "clipped", "params"):
                kernel, bias = rng.standard_normal((3, 4)).astype("f"), rng.standard_normal(4).astype("f")
                kernel, bias = change(stage, step, kernel), change(stage, step, bias)
                found[stage] = {names("layer.kernel"): kernel.T if transposed else kernel, names("layer.bias"): bias}
            loss, lr = (float(change(stage, step, np.float32(0.3))) for stage in ("loss", "lr"))
            found["batch"] = found["batch"][names("layer.bias")]
            state = {"mu": {name: x * 2 for name, x in found["gradients"].items()}, "count": np.int32(step)}
            recorder.step(**found, loss=loss, lr=lr, state=state)
    return read(folder)


def at(stage, step, by=1.5):
    return lambda here, now, x: x * np.float32(by) if (here, now) == (stage, step) else x


@pytest.mark.parametrize("tensors", [None, "all"])
@pytest.mark.parametrize("stage", ["batch", "loss", "gradients", "clipped", "lr", "params"])
def test_the_first_step_and_stage_that_part_are_named(tmp_path, stage, tensors):
    first = write(tmp_path / "a", tensors=tensors)
    for mode in (Tolerance(), Tolerance(tolerance=1e-3)):
        folder = tmp_path / f"b{mode}"
        found = diff(first, write(folder, at(stage, 4), tensors=tensors), mode=mode)
        assert (found.course.parting.step, found.course.parting.place.stage) == (4, stage)
        assert found.rounding().startswith("More than rounding: it begins at step 4")
    assert diff(first, first).course.same
    assert diff(first, first).rounding() == "Nothing differs."


@pytest.mark.parametrize("tensors", [None, "all"])
def test_a_tolerance_lets_pass_what_is_smaller(tmp_path, tensors):
    first = write(tmp_path / "a", tensors=tensors)
    second = write(tmp_path / "b", at("gradients", 2, 1 + 1e-5), tensors=tensors)
    assert not diff(first, second).course.same
    assert not diff(first, second, mode=Tolerance(tolerance=1e-7)).course.same
    assert diff(first, second, mode=Tolerance(tolerance=1e-3)).course.same


def test_what_begins_as_rounding_and_grows_is_told_from_what_jumps(tmp_path):
    def grown(rate):
        return lambda stage, step, x: x * np.float32(1 + 1e-7 * rate**step) if stage == "params" else x

    first = write(tmp_path / "a", tensors="all")
    gradual = diff(first, write(tmp_path / "b", grown(3), tensors="all"))
    assert gradual.rounding().startswith("Like rounding: it begins no larger (step 1, params")
    assert gradual.rounding().endswith("Another formula with so small an effect would look the same.")
    jumps = lambda stage, step, x: at("params", 5, 1.5)(stage, step, grown(1)(stage, step, x))  # noqa: E731
    sudden = diff(first, write(tmp_path / "c", jumps, tensors="all"))
    assert "but at step 5 params['layer.bias'] is 3.3e-01 apart" in sudden.rounding()


@pytest.mark.parametrize("swapped", [False, True])
def test_kernels_of_jax_are_compared_with_weights_of_torch(tmp_path, swapped):
    """Elements as they lie in the first; without them norm and extremes, and it is said that bits were not."""
    weight = lambda name: name.replace("kernel", "weight")  # noqa: E731

    def both(name, tensors, change=at("params", 0)):  # noqa: B008
        pair = [
            write(tmp_path / f"{name}-jax", tensors=tensors),
            write(tmp_path / f"{name}-torch", change, names=weight, transposed=True, tensors=tensors),
        ]
        pair[1].header["framework"] = "torch"
        return diff(*(pair[::-1] if swapped else pair))

    for tensors in ("all", None):
        same = both(tensors, tensors)
        assert same.course.same
        assert same.pairing.by == "translated"
        assert bool(same.by_norms) == (tensors is None)
    changed = both("changed", "all", at("params", 3))
    assert (changed.course.parting.step, changed.course.parting.place.stage) == (3, "params")
    changed = both("hashes", None, lambda stage, step, x: -x if (stage, step, x.ndim) == ("params", 3, 2) else x)
    assert (changed.course.parting.step, changed.course.parting.place.leaf[-8:-2]) == (3, "weight" if swapped else "kernel")


def test_names_may_be_given(tmp_path):
    first = write(tmp_path / "a")
    other = {"layer.kernel": "x", "layer.bias": "y"}
    second = write(tmp_path / "b", names=other.get, transposed=True)
    assert diff(first, second, names={"['layer']['kernel']": ["x", [1, 0]], "layer.bias": "y"}).course.same
    some = diff(first, second, names={"layer.bias": "y"})
    assert {place.leaf for place in some.course.distances if place.stage == "params"} == {"['layer.bias']"}
    assert "leaves layer.kernel of " in some.pairing.unpaired[0]
    for names, message in [
        ({"layer": "x"}, "layer is no leaf of .*; one of layer.bias, layer.kernel is needed"),
        ({"layer.bias": "z"}, "z is no leaf of .*; one of x, y is needed"),
        ({"layer.bias": 3}, r"layer.bias is 3; the name of a leaf, or \[name, axes\], is needed"),
    ]:
        with pytest.raises(ValueError, match=message):
            diff(first, second, names=names)


def test_counters_and_numbers_are_compared_whatever_their_type(tmp_path):
    leaves = {"a": np.ones(2, "f"), "b": np.ones(3, "f")}
    for name, state, lr in [
        ("jax", {"count": np.int32(3)}, np.float32(0.1)),
        ("torch", {"step": {"a": np.float32(3), "b": np.float32(3)}}, 0.1),
        ("late", {"step": {"a": np.float32(2), "b": np.float32(2)}}, 0.1),
    ]:
        with Recorder(tmp_path / name) as recorder:
            recorder.step(params=leaves, state=state, lr=lr)
    first = read(tmp_path / "jax")
    assert diff(first, read(tmp_path / "torch")).course.same
    late = diff(first, read(tmp_path / "late")).course
    assert late.parting.place == Place("state", "", "count")
    assert late.parting.values == (3, 2)


def test_what_only_one_has_is_said(tmp_path):
    first = write(tmp_path / "a")
    with Recorder(tmp_path / "b") as recorder:
        recorder.step(params={"layer.kernel": np.zeros((3, 4), "f"), "layer.bias": np.zeros(4, "f")})
    found = diff(first, read(tmp_path / "b"))
    assert found.pairing.unpaired == [f"batch, gradients, clipped, state, loss, lr (only in {tmp_path / 'a'})"]
    assert found.steps_only_in == [f"5 steps (2 to 6) only in {tmp_path / 'a'}"]


def test_other_shapes_are_refused(tmp_path):
    first = write(tmp_path / "a")
    with Recorder(tmp_path / "b") as recorder:
        recorder.step(params={"layer.kernel": np.zeros((3, 4)), "layer.bias": np.zeros(4, "f")})
    with pytest.raises(ValueError, match=r"params\['layer.kernel'\] is float32\[3, 4\] in .*, float64\[3, 4\] in"):
        diff(first, read(tmp_path / "b"))
    with Recorder(tmp_path / "c") as recorder:
        recorder.step(params={"layer.kernel": np.zeros((3, 4), "f")})
    with pytest.raises(ValueError, match=r"has 2 leaves, .* 1; only there: layer.bias; none. Say names."):
        diff(first, read(tmp_path / "c"))


# The commands


def test_diff_exits_with_what_it_found(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a")
    write(tmp_path / "b", at("gradients", 3))
    page = tmp_path / "page.html"
    status, out, _ = optparity(monkeypatch, capsys, "diff", tmp_path / "a", tmp_path / "a")
    assert (status, out.splitlines()[-1]) == (0, "They do not part. Nothing differs.")
    status, out, _ = optparity(monkeypatch, capsys, "diff", tmp_path / "a", tmp_path / "b", "--html", page)
    assert status == 1
    assert out.splitlines()[-1].startswith("They part at step 3, gradients['layer.bias']: ")
    assert "<html" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diff", "a", "nothing"], "nothing is no trace"),
        (["diff", "a", "damaged"], "line 3: damaged"),
        (["diff", "a", "ranks"], "a has ranks 0, "),
        (["diff", "a", "a", "--tolerance", "-1"], "a finite number >= 0 is needed; got -1"),
        (["diff", "a", "a", "--names", "nothing"], "--names nothing cannot be read"),
        (["diff", "a", "a", "--names", "list.json"], "an object"),
        (["replay", "a"], "--torch or --jax is needed"),
        (["replay", "a", "--torch", "torch.optim:SGD"], "has not the elements of its first parameters"),
        (["replay", "nothing", "--torch", "torch.optim:SGD"], "nothing is no trace"),
        (["replay", "kept", "--torch", "torch.optim:Nothing"], "torch.optim has no Nothing"),
        (["replay", "kept", "--jax", "nothing:at_all"], "nothing cannot be imported"),
        (["replay", "kept", "--jax", "optax:adam", "--set", "b1"], "--set b1: KEY=VALUE is needed"),
        (["replay", "kept", "--torch", "torch.optim:SGD", "--set", "b1=3"], "fails: TypeError"),
        (["replay", "kept", "--torch", "torch.optim:SGD", "--rank", "4"], "--rank 4: kept has 0."),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write("a")
    write("ranks", rank=2)
    write("damaged")
    file = tmp_path / "damaged" / "rank-0" / STEPS
    file.write_bytes(file.read_bytes().replace(b'"step": 1,', b'"step": 7,'))
    (tmp_path / "list.json").write_text("[]")
    sgd("kept")
    one_line(*optparity(monkeypatch, capsys, *arguments), message)


# Replay


def sgd(folder, rates=(0.5, 0.5, 0.25), momentum=0.9, **options) -> Trace:
    """A run of torch's SGD, as far as NumPy is concerned."""
    rng = np.random.default_rng(0)
    w = torch.nn.Parameter(torch.tensor(rng.standard_normal(5).astype("f")))
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=momentum)
    with Recorder(folder, **{"tensors": "gradients", **options}) as recorder:
        recorder.start({"w": w})
        for lr in rates:
            optimizer.param_groups[0]["lr"] = lr
            w.grad = torch.tensor(rng.standard_normal(5).astype("f"))
            left = w.grad.clone()
            w.grad.mul_(0.5)
            optimizer.step()
            state = {"momentum_buffer": {"w": optimizer.state[w]["momentum_buffer"]}} if momentum else None
            recorder.step(gradients={"w": left}, clipped={"w": w.grad}, params={"w": w}, state=state, lr=lr)
    return read(folder)


@pytest.mark.parametrize("tensors", ["gradients", "all"])
def test_replay_tells_the_optimizer_from_what_comes_before_it(tmp_path, tensors):
    trace = sgd(tmp_path, tensors=tensors)
    for optimizer in (Named("torch", "torch.optim:SGD", {"momentum": 0.9}), Named("jax", "jaxopt_impl:sgd", {"momentum": 0.9})):
        # torch's own is not rounded once, so that ours is near it only
        found = replay(trace, optimizer, mode=Tolerance(tolerance=1e-6 if optimizer.framework == "jax" else 0.0))
        assert found.compared.course.same, str(found)
        assert str(found).startswith("Not the optimizer: given the recorded gradients, ")
        assert found.rates == "the recorded learning rates"
        assert {place.stage for place in found.compared.course.distances} == {"state", "params"}
    other = replay(trace, Named("torch", "torch.optim:SGD", {"momentum": 0.8}))
    assert str(other).startswith(
        "It is the optimizer: given the recorded gradients, torch.optim.SGD(momentum=0.8) parts from the run, step 2"
    )
    assert not replay(trace, Named("torch", "torch.optim:SGD", {"momentum": 0.9}), before_clip=True).compared.course.same
    assert not replay(trace, Named("torch", "torch.optim:SGD", {"momentum": 0.9, "lr": 0.5})).compared.course.same


def test_replay_ends_where_the_elements_do(tmp_path):
    trace = sgd(tmp_path, rates=(0.5,) * 6, shard_mib=50 / 2**20)
    trace.shards.pop()  # as of a run that was killed before it was written
    found = replay(trace, Named("torch", "torch.optim:SGD", {"momentum": 0.9}))
    assert found.compared.course.same
    assert found.ended.startswith(f"from step {len(found.compared.course.steps) + 1} on the elements")
    with pytest.raises(ValueError, match="from step 1 on the elements of the gradients are not there"):
        replay(sgd(tmp_path / "every", every=2), Named("torch", "torch.optim:SGD"))


def test_replay_follows_a_schedule_in_jax_and_a_chain_before_its_clip(tmp_path):
    rates = np.linspace(0.5, 0.1, 5).astype("f")
    recorder = Recorder(tmp_path, tensors="gradients")
    tx = recorded(clipped_sgd(lambda count: jnp.asarray(rates)[count]), recorder)
    params = {"w": jnp.ones(3)}
    state = tx.init(params)
    for step in range(5):
        updates, state = tx.update({"w": jnp.full(3, step + 1.0)}, state, params, lr=rates[step])
        params = optax.apply_updates(params, updates)
    recorder.finish(params)
    trace = read(tmp_path)
    near = Tolerance(tolerance=1e-6)  # the run was not under jit
    assert not replay(trace, Named("jax", "optax:sgd"), mode=near).compared.course.same  # without the clip
    clipped = Named("jax", "parity_tests.traces.test_diff:clipped_sgd")
    assert replay(trace, clipped, mode=near).compared.course.same
    with pytest.raises(ValueError, match="fails: TypeError"):
        replay(trace, Named("jax", "parity_tests.traces.test_diff:sgd_without_a_rate"))


def clipped_sgd(learning_rate):
    return optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(learning_rate))


def sgd_without_a_rate():
    return optax.sgd(0.1)


def test_replay_says_it_in_one_line(tmp_path, monkeypatch, capsys):
    sgd(tmp_path)
    status, out, _ = optparity(monkeypatch, capsys, "replay", tmp_path, "--torch", "torch.optim:SGD", "--set", "momentum=0.9")
    assert status == 0
    assert out.splitlines()[-1].startswith("Not the optimizer: ")
    status, out, _ = optparity(monkeypatch, capsys, "replay", tmp_path, "--torch", "torch.optim:SGD", "--set", "momentum=0.8")
    assert status == 1
    assert out.splitlines()[-1].startswith("It is the optimizer: ")


# Two scripts

FOUND = {
    "order": ("batch", ""),
    "loss": ("loss", ""),
    "gradient": ("gradients", "['output.kernel']"),
    "clip": ("clipped", "['hidden.bias']"),
    "optimizer": ("state", "['hidden.bias']"),
    "schedule": ("lr", ""),
}


def check_mistake(first: Trace, second: Trace, mistake: str) -> None:
    course = diff(first, second, mode=Tolerance(tolerance=1e-4)).course
    if mistake == "none":
        assert course.same
    else:
        place = course.parting.place
        assert (course.parting.step, place.stage) == (BEGINS, FOUND[mistake][0])
        assert FOUND[mistake][1] in ("", place.leaf)


def test_one_mistake_between_two_scripts_is_named(tmp_path):
    train_jax.main(str(tmp_path / "jax"))
    train_torch.main(str(tmp_path), "none", "gradient")
    for mistake in ("none", "gradient"):
        check_mistake(read(tmp_path / "jax"), read(tmp_path / mistake), mistake)
    assert diff(read(tmp_path / "jax"), read(tmp_path / "none")).rounding().startswith("Like rounding")


@EXHAUSTIVE
def test_every_mistake_between_two_processes_is_named(tmp_path):
    for module, *arguments in (("train_jax", tmp_path / "jax"), ("train_torch", tmp_path, "none", *FOUND)):
        subprocess.run([sys.executable, "-m", f"parity_tests.traces.{module}", *map(str, arguments)], check=True)
    first = read(tmp_path / "jax")
    for mistake in ("none", *FOUND):
        check_mistake(first, read(tmp_path / mistake), mistake)


def test_the_names_file_is_read(tmp_path, monkeypatch, capsys):
    write(tmp_path / "a")
    write(tmp_path / "b", names={"layer.kernel": "x", "layer.bias": "y"}.get)
    (tmp_path / "names.json").write_text(json.dumps({"layer.kernel": "x", "layer.bias": "y"}))
    status, out, _ = optparity(monkeypatch, capsys, "diff", tmp_path / "a", tmp_path / "b", "--names", tmp_path / "names.json")
    assert status == 0
    assert "leaves by given names" in out
