"""`optparity check --jax NAME --torch NAME`: any two optimizers, what it prints, what it writes, how it exits, what it refuses."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from optparity.traces.recorder import Recorder, Tensors

from .running import hiding, one_line, optparity, subprocess_optparity

OURS = ("--jax", "jaxopt_impl:sgd", "--torch", "torch_ref:SGD", "--set", "learning_rate=0.1", "--set-torch", "lr=0.1")
STOCK = ("--jax", "optax:adamw", "--torch", "torch.optim:AdamW", "--set", "learning_rate=0.1", "--set-torch", "lr=0.1")

MINE = """
import jax, optax, torch

def sign_descent(learning_rate):
    return optax.chain(optax.scale_by_sign(), optax.scale(-learning_rate))

class SignDescent(torch.optim.Optimizer):
    def __init__(self, params, lr, flip=1.0):
        super().__init__(params, {"lr": lr, "flip": flip})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad.sign() * group["flip"], alpha=group["lr"])

class Fails(SignDescent):
    def step(self):
        raise RuntimeError("no step\\ntoday")

class Narrow(SignDescent):
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.dtype == torch.float64:
                    raise TypeError("float32 only")
        super().step()

class Leaves(SignDescent):
    def step(self):
        raise SystemExit(3)

class factories:
    refusing = staticmethod(lambda *params: int("x"))
    of_a_number = staticmethod(lambda *params: 3)

def failing_update():
    return optax.GradientTransformation(lambda p: (), lambda g, s, p: g["no such leaf"])

def failing_init():
    return optax.GradientTransformation(lambda p: 1 / 0, lambda g, s, p: (g, s))

def another_shape():
    return optax.GradientTransformation(lambda p: (), lambda g, s, p: (jax.tree.map(lambda x: x[None], g), s))

number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with modules of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken_syntax.py").write_text("def f(:\n")
    (tmp_path / "broken_import.py").write_text("import no_such_package\n")
    (tmp_path / "broken_script.py").write_text("import sys; sys.exit('usage: FILE')\n")
    yield tmp_path
    for name in ("mine", "broken_import", "broken_script", "broken_syntax"):
        sys.modules.pop(name, None)


@pytest.fixture
def check(monkeypatch, capsys):
    with jax.numpy_rank_promotion("allow"):  # as users have it
        yield lambda *arguments: optparity(monkeypatch, capsys, "check", *arguments)


def refused(found, message):
    status, out, err = found
    one_line(status, out, err, message)


def test_our_pair_is_the_same(check):
    status, out, err = check(*OURS, "--set", "momentum=0.9", "--set-torch", "momentum=0.9", "--steps", 3)
    assert (status, err) == (0, "")
    first, steps, mode, lone, verdict = out.splitlines()
    assert first == "jaxopt_impl.sgd(learning_rate=0.1, momentum=0.9) against torch_ref.SGD(lr=0.1, momentum=0.9)"
    assert steps == "3 steps of stream normal, seed 0; 4 leaves, 810 elements, float32"
    assert mode == "mode: bits; compared: params, momentum_buffer"
    assert lone == f"not compared: step of {first.partition(' against ')[0]}: no field of the other is known to mean the same"
    assert verdict == "8 arrays, no difference; 4,860 elements compared."


def test_optax_against_torch_differs_in_bits_and_not_within_tolerances(check, tmp_path):
    status, out, _ = check(*STOCK, "--steps", 3, "--set", "weight_decay=0.01", "--float64", "--json", tmp_path / "a.json")
    assert status == 1
    assert "compared: params, count = step, mu = exp_avg, nu = exp_avg_sq" in out
    assert "params['kernel']" in out
    assert "rounding, 1" in out
    assert "another formula" not in out
    assert "first: step 1, nu = exp_avg_sq['" in out
    assert max(map(len, out.splitlines())) <= 100
    document = json.loads((tmp_path / "a.json").read_text())
    assert (document["mode"], document["same"]) == ("bits", False)
    assert document["gradients"] == "stream normal, seed 0"
    assert document["machine"]["jax"]
    assert {of["kind"] for of in document["rounding"]} == {"same", "rounding"}
    status, out, _ = check(*STOCK, "--steps", 3, "--set", "weight_decay=0.01", "--rtol", 1e-5, "--atol", 1e-5)
    assert status == 0
    assert "mode: rtol=1e-05, atol=1e-05" in out


def test_another_formula_is_told_from_rounding(check):
    status, out, _ = check(*STOCK, "--steps", 2, "--set", "weight_decay=0.01", "--set", "eps=1.1e-8", "--float64")
    assert status == 1
    assert "params['kernel']" in out
    assert "another formula, 1" in out
    assert out.splitlines()[-2].startswith("in float64: ")


def test_fused_against_the_loop(check):
    pair = ("--torch", "torch.optim:AdamW", "--torch", "torch.optim:AdamW", "--set", "lr=0.1", "--set-second", "lr=0.1")
    status, out, _ = check(*pair, "--set-second", "fused=true", "--set-second", "betas=[0.9,0.999]", "--steps", 2)
    assert status == 1
    assert out.startswith("torch.optim.AdamW(lr=0.1) against torch.optim.AdamW(lr=0.1, fused=True, betas=[0.9, 0.999])\n")
    assert check(*pair, "--set-second", "fused=true", "--steps", 2, "--ulp", 1000)[0] == 0


def test_optax_against_optax_needs_no_torch():
    pair = ("--jax", "optax:sgd", "--jax", "optax:contrib.schedule_free_sgd", "--set", "learning_rate=0.1")
    ran = subprocess_optparity("check", *pair, "--set-second", "learning_rate=0.1", "--steps", 2, before=hiding("torch"))
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "not compared: " in ran.stdout
    assert "z of optax.contrib.schedule_free_sgd(learning_rate=0.1)" in ran.stdout


@pytest.mark.usefixtures("here")
def test_modules_of_the_working_folder(check):
    mine = ("--jax", "mine:sign_descent", "--torch", "mine:SignDescent", "--set", "learning_rate=0.125", "--set-torch", "lr=0.125")
    status, out, _ = check(*mine, "--steps", 3)
    assert (status, out.splitlines()[-1]) == (0, "4 arrays, no difference; 2,430 elements compared.")
    status, out, _ = check(*mine, "--steps", 3, "--set-torch", "flip=-1.0")
    assert status == 1
    assert "4 of 4 arrays differ" in out


@pytest.mark.usefixtures("here")
def test_an_optimizer_that_cannot_do_float64_is_compared_all_the_same(check):
    mine = ("--jax", "mine:sign_descent", "--torch", "mine:Narrow", "--set", "learning_rate=0.125", "--set-torch", "lr=0.25")
    status, out, _ = check(*mine, "--steps", 1)
    assert status == 1
    assert "why: it cannot be asked: " in out
    refused(check(*mine, "--steps", 1, "--float64"), "float32 only")


def test_why_they_part(check):
    status, out, _ = check(*STOCK, "--steps", 2)
    assert status == 1
    assert "why: optax.adamw has weight decay 0.0001, torch.optim.AdamW 0.01: say weight_decay=0.01 to optax.adamw.\n" in out


def test_parameters_from_files(check, here):
    (here / "shapes.json").write_text('{"layer": {"kernel": [3, 4], "bias": {"shape": [4], "dtype": "bfloat16"}}}')
    status, out, _ = check(*OURS, "--params", here / "shapes.json", "--steps", 2)
    assert status == 0
    assert "2 leaves, 16 elements, bfloat16, float32" in out
    assert "2 leaves, 16 elements, float64" in check(*OURS, "--params", "shapes.json", "--steps", 1, "--dtype", "float64")[1]
    weights = {"layer.weight": np.ones((2, 3), jnp.bfloat16), "layer.bias": np.ones(3, np.float32), "seen": np.array([3])}
    save_file(weights, here / "weights.safetensors")
    status, out, _ = check(*OURS, "--params", "weights.safetensors", "--steps", 2)
    assert status == 0
    assert out.splitlines()[0] == "not floating point, left out: seen"
    assert "2 leaves, 9 elements, float32, bfloat16" in out
    status, out, _ = check(*STOCK, "--params", "weights.safetensors", "--steps", 2, "--dtype", "float32")
    assert status == 1
    assert "params['layer.weight']" in out


def test_state_names_that_are_given(check):
    rprop = ("--jax", "optax:rprop", "--torch", "torch.optim:Rprop", "--set", "learning_rate=0.1", "--set-torch", "lr=0.1", "--steps", 1)
    assert "not compared: prev_updates of optax.rprop(learning_rate=0.1)" in check(*rprop)[1]
    assert "prev_updates = prev" in check(*rprop, "--state-map", "prev_updates=prev")[1]


def trace(folder: Path, *, tensors: Tensors | None = "gradients", **shapes):
    """Three steps of a run that somebody recorded."""
    rng = np.random.default_rng(0)
    params = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    with Recorder(folder, tensors=tensors) as recorder:
        recorder.start(params)
        for _ in range(3):
            recorder.step(gradients={name: rng.standard_normal(x.shape, np.float32) for name, x in params.items()}, params=params)
    return params


def test_gradients_of_a_trace(check, here):
    params = trace(here / "run", w=(3, 2), b=(2,))
    status, out, _ = check(*OURS, "--gradients", "run")
    assert status == 0
    assert out.splitlines()[1] == "3 steps of trace run; 2 leaves, 8 elements, float32"
    save_file(params, here / "start.safetensors")
    assert check(*OURS, "--gradients", "run", "--params", "start.safetensors", "--steps", 2)[1].splitlines()[1].startswith("2 steps")


def test_what_the_optimizer_got_is_after_the_clip(check, here):
    """Gradients are ones, clipped ones 2: with a learning rate of 1 against one of 0 the parameters part by 2."""
    ones = {"w": np.ones(3, np.float32)}
    with Recorder(here / "run", tensors="gradients") as recorder:
        recorder.start(ones)
        recorder.step(gradients=ones, clipped={"w": 2 * ones["w"]}, params=ones)
    pair = ("--jax", "optax:sgd", "--jax", "optax:sgd", "--set", "learning_rate=1", "--set-second", "learning_rate=0")
    check(*pair, "--gradients", "run", "--json", "found.json")
    (params,) = (place for place in json.loads((here / "found.json").read_text())["places"] if place["stage"] == "params")
    assert params["absolute"] == [2.0]


def test_a_trace_that_does_not_fit_is_refused(check, here):
    trace(here / "hashes", tensors=None, w=(3,))
    refused(check(*OURS, "--gradients", "hashes"), "the elements of its first parameters were not recorded; say --params.")
    trace(here / "run", w=(3,))
    for shapes, message in (
        ('{"w": [4]}', "gradients of step 1: leaf ['w'] is float32[3]; the parameter is float32[4]."),
        ('{"v": [3]}', "trace run: step 1 has a gradient of w; the parameters are v."),
    ):
        (here / "shapes.json").write_text(shapes)
        refused(check(*OURS, "--gradients", "run", "--params", "shapes.json"), message)
    refused(check(*OURS, "--gradients", "hashes", "--params", "shapes.json"), "trace hashes: step 1 has a gradient of w")
    (here / "shapes.json").write_text('{"w": [3]}')
    refused(check(*OURS, "--gradients", "hashes", "--params", "shapes.json"), "no step was compared")
    steps = here / "run" / "rank-0" / "steps.jsonl"
    steps.write_text(steps.read_text().replace("norm", "worm", 1))
    refused(check(*OURS, "--gradients", "run"), "run/rank-0/steps.jsonl, line ")
    refused(check(*OURS, "--gradients", "nothing"), "nothing is no trace")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("optax", "torch.optim:SGD", "--jax optax: pkg.module:factory is needed."),
        ("no_such:f", "torch.optim:SGD", "--jax no_such:f: no_such cannot be imported: ModuleNotFoundError: No module named 'no_such'"),
        ("optax:no_such", "torch.optim:SGD", "--jax optax:no_such: optax has no no_such."),
        ("optax:identity", "torch.optim:no_such", "--torch torch.optim:no_such: torch.optim has no no_such."),
        ("optax:identity", "broken_import:f", "broken_import cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("optax:identity", "broken_syntax:f", "broken_syntax cannot be imported: SyntaxError: "),
        ("optax:identity", "broken_script:f", "broken_script cannot be imported: SystemExit: usage: FILE"),
        ("mine:number", "torch.optim:SGD", "--jax mine:number: number is a int; a factory is needed."),
        ("optax:sgd", "torch.optim:SGD", "optax.sgd() fails: TypeError: sgd() missing 1 required positional argument: 'learning_rate'"),
        ("mine:failing_update", "mine:factories.refusing", "mine.factories.refusing() fails: ValueError: invalid literal"),
        (
            "mine:failing_update",
            "mine:factories.of_a_number",
            "mine.factories.of_a_number() gives a int; a torch.optim.Optimizer is needed.",
        ),
        ("mine:factories.of_a_number", "torch.optim:SGD", "gives a int; an optax.GradientTransformation is needed."),
        ("mine:failing_update", "torch.optim:SGD", "mine.failing_update() fails at step 1: KeyError: 'no such leaf'"),
        ("mine:failing_init", "torch.optim:SGD", "mine.failing_init() fails in init: ZeroDivisionError: division by zero"),
        (
            "mine:another_shape",
            "torch.optim:SGD",
            "params['bias'] is float32[1, 17] in mine.another_shape(), float32[17] in torch.optim.SGD().",
        ),
        ("optax:identity", "torch.optim:LBFGS", "torch.optim.LBFGS() fails at step 1: TypeError: LBFGS.step()"),
        ("mine:another_shape", "torch.optim:Muon", "torch.optim.Muon() fails: ValueError: Muon only supports 2D parameters"),
        (
            "optax:identity",
            "torch.optim:SparseAdam",
            "torch.optim.SparseAdam() fails at step 1: RuntimeError: SparseAdam does not support",
        ),
        ("mine:another_shape", "optax:identity", "optax.identity() fails: TypeError: "),
    ],
)
def test_whatever_the_named_code_does_is_one_line(first, second, message, check):
    refused(check("--jax", first, "--torch", second, "--steps", 1), message)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("name", "message"), [("Fails", "RuntimeError: no step\n"), ("Leaves", "SystemExit: 3\n")])
def test_a_step_that_fails_is_one_line(name, message, check):
    refused(check("--torch", f"mine:{name}", "--torch", f"mine:{name}", "--set", "lr=1", "--set-second", "lr=1"), f"step 1: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jax", "optax:sgd"], "two optimizers are needed, with --jax, --torch, or one of them twice; got 1."),
        (["--jax", "optax:sgd", *OURS], "two optimizers are needed, with --jax, --torch, or one of them twice; got 3."),
        ([*OURS, "--set", "momentum"], "--set momentum: KEY=VALUE is needed."),
        ([*OURS, "--set", "=3"], "--set =3: KEY=VALUE is needed."),
        ([*OURS, "--set-torch", "momentum"], "--set-second momentum: KEY=VALUE is needed."),
        ([*OURS, "--set", "momentum=-1"], "jaxopt_impl.sgd(learning_rate=0.1, momentum=-1) fails: ValueError: Invalid momentum value: -1"),
        ([*OURS, "--state-map", "mu"], "--state-map mu: FIRST=SECOND is needed."),
        ([*OURS, "--state-map", "mu=sum"], "state_map mu=sum: jaxopt_impl.sgd(learning_rate=0.1) has no state field mu; it has: "),
        ([*OURS, "--rtol", "-1"], "mode: rtol must be at least 0, got -1.0."),
        ([*OURS, "--atol", "nan"], "mode: atol must be at least 0, got nan."),
        ([*OURS, "--rtol", "0.1", "--ulp", "3"], "mode: ulp=3 and tolerances are two modes; one is needed."),
        ([*OURS, "--ulp", "-1"], "Invalid value for '--ulp'"),
        ([*OURS, "--stream", "normal", "--stream", "wide"], "--stream: with --jax and --torch one is taken; got normal, wide."),
        ([*OURS, "--dtype", "float32", "--dtype", "float64"], "--dtype: with --jax and --torch one is taken; got float32, float64."),
        ([*OURS, "--stream", "digits"], "--stream digits: it has parameters of its own; one of normal, "),
        ([*OURS, "--dtype", "float64", "--float64"], "float64: leaf ['bias'] is float64 already"),
        ([*OURS, "--params", "no.json"], "no.json cannot be used: No such file or directory."),
        ([*OURS, "--params", "no.safetensors"], "it is no safetensors file, or a damaged one"),
        ([*OURS, "--params", "no.npz"], "--params no.npz: a file name that ends in .json or .safetensors is needed."),
        ([*OURS, "--json", "/proc/no/file.json"], "/proc/no/file.json cannot be written"),
        ([*OURS, "--html", "."], ". is a folder; a file name is needed."),
        ([*OURS, "--gradients", "no", "--stream", "wide"], "--stream: the gradients of a trace are what they are."),
        ([*OURS, "--gradients", "no", "--dtype", "float32"], "--dtype: the gradients of a trace are what they are."),
        (["adam", *OURS], "NAME is about our own pairs; with --jax and --torch it has no meaning."),
        ([*OURS, "--around"], "--around is about our own pairs; with --jax and --torch it has no meaning."),
        ([*OURS, "--plot", "a.png"], "--plot is about our own pairs; with --jax and --torch it has no meaning."),
        (["--set", "lr=0.1"], "--set: name two optimizers with --jax and --torch."),
        (["--set-torch", "lr=0.1"], "--set-second: name two optimizers with --jax and --torch."),
        (["adam", "--float64"], "--float64: name two optimizers with --jax and --torch."),
        (["--rtol", "0"], "--rtol: name two optimizers with --jax and --torch."),
        (["--html", "a.html"], "--html: name two optimizers with --jax and --torch."),
    ],
)
def test_bad_arguments(arguments, message, check, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(check(*arguments), message)
    assert list(tmp_path.iterdir()) == []


def test_weights_without_a_floating_point_tensor_are_refused(check, here):
    save_file({"n": np.array([1])}, here / "n.safetensors")
    status, _, err = check(*OURS, "--params", "n.safetensors")
    assert (status, err) == (2, "optparity: --params n.safetensors: it has no floating-point tensor.\n")


def test_a_page_is_written(check, tmp_path):
    status, out, err = check(*STOCK, "--steps", 2, "--float64", "--html", tmp_path / "a.html")
    assert (status, err) == (1, "")
    page = (tmp_path / "a.html").read_text()
    assert "optax.adamw(learning_rate=0.1) against torch.optim.AdamW(lr=0.1)" in page
    assert out.splitlines()[-1].endswith("elements compared.")
