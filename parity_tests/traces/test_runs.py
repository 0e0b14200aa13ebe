"""Two lines record a run in either framework, and change nothing of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxopt_impl
from optparity import Recorder, interop, record_torch, recorded
from optparity.traces.reading import Trace, traces

pytestmark = pytest.mark.usefixtures("as_users_have_it")


def read(folder) -> Trace:
    return traces(folder)[0]


def array(trace, step, stage, path, field=""):
    """The elements, or None where that was not recorded."""
    found = [leaf for leaf in trace.leaves if (leaf.stage, leaf.field, leaf.path) == (stage, field, path)]
    return trace.tensor(step, found[0]) if found else None


def model() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))


INPUTS = torch.arange(24.0).reshape(4, 2, 3) / 24


# PyTorch


def train(folder=None, *, clip=None, microbatches=1, closure=False, steps=4, **options):
    """A run; the gradients as backward left them, as the optimizer got them, and the parameters after, step by step."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    recorder = record_torch(optimizer, folder, model=net, tensors="all", **options) if folder else None
    weight, seen = net[0].weight, []
    for step in range(steps):
        left = []

        def backward(step=step, left=left):
            optimizer.zero_grad()
            for i in range(microbatches):
                loss = net(INPUTS[(step + i) % 4]).square().mean()
                loss.backward()
            left.append(weight.grad.clone())
            if clip:
                torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
            return loss

        if closure:
            optimizer.step(backward)
        else:
            loss = backward()
            if recorder:
                recorder.note(loss=loss)
            optimizer.step()
        seen.append((left[0], weight.grad.clone(), weight.detach().clone()))
    if recorder:
        recorder.close()
    return seen


@pytest.mark.parametrize(
    ("clip", "microbatches", "closure"),
    [(None, 1, False), (None, 3, False), (None, 1, True), (1e-3, 1, False), (1e-3, 3, True), (1e3, 3, False)],
)
def test_torch_hooks_see_what_backward_left_and_what_the_optimizer_got(tmp_path, clip, microbatches, closure):
    seen = train(tmp_path, clip=clip, microbatches=microbatches, closure=closure)
    for ours, plain in zip(seen, train(clip=clip, microbatches=microbatches, closure=closure), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))  # recording changes nothing
    trace = read(tmp_path)
    assert trace.last == len(seen)
    assert array(trace, 0, "params", "0.weight").tolist() == model()[0].weight.tolist()
    for step, (left, got, after) in enumerate(seen, 1):
        assert array(trace, step, "gradients", "0.weight").tolist() == left.tolist()
        clipped = array(trace, step, "clipped", "0.weight")
        assert (clipped is None) == (clip != 1e-3)  # a norm that is small enough changes nothing
        assert clipped is None or clipped.tolist() == got.tolist()
        assert array(trace, step, "params", "0.weight").tolist() == after.tolist()
        assert array(trace, step, "state", "0.weight", "momentum_buffer") is not None


def test_torch_hooks_see_batch_rate_and_loss(tmp_path):
    train(tmp_path, microbatches=2)
    steps = list(read(tmp_path).steps())
    assert steps[1].numbers["lr"] == {"": 0.1}
    assert steps[1].numbers["loss"].keys() == {""}
    assert [leaf.path for leaf in steps[1].leaves if leaf.stage == "batch"] == ["0", "1"]
    hashes = {step.number: [summary.hash for leaf, summary in step.leaves.items() if leaf.stage == "batch"] for step in steps}
    assert hashes[1][1] == hashes[2][0] != hashes[1][0]


def test_a_scaled_loss_is_recorded_without_its_scale(tmp_path):
    """And a step that GradScaler skips, with infinite gradients, is none."""
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    recorder = record_torch(optimizer, tmp_path, model=net, scaler=scaler, tensors="all")
    expected = []
    for step in range(4):
        optimizer.zero_grad()
        loss = net(INPUTS[step]).square().mean()
        expected.append(torch.autograd.grad(loss, net[0].weight, retain_graph=True)[0])
        scaler.scale(loss * (float("inf") if step == 1 else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
    recorder.close()
    trace = read(tmp_path)
    assert trace.last == 3
    for step, of in ((1, 0), (2, 2), (3, 3)):
        assert array(trace, step, "gradients", "0.weight").tolist() == expected[of].tolist()
        assert array(trace, step, "clipped", "0.weight") is None  # unscaled, they are the same


def test_gradients_that_no_backward_made_are_recorded_too(tmp_path):
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([("w", p)], lr=0.1)
    with record_torch(optimizer, tmp_path, tensors="all"):
        p.grad = torch.full((2,), 3.0)
        optimizer.step()
    assert array(read(tmp_path), 1, "gradients", "w").tolist() == [3, 3]


def test_hooks_are_gone_after_close(tmp_path):
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([p], lr=0.1)
    recorder = record_torch(optimizer, tmp_path)
    p.sum().backward()
    optimizer.step()
    recorder.close()
    p.sum().backward()
    optimizer.step()
    assert [step.number for step in read(tmp_path).steps()] == [0, 1]
    assert [leaf.path for leaf in read(tmp_path).leaves if leaf.stage == "params"] == ["0"]


def test_a_parameter_that_the_model_has_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"parameter 0 of the optimizer \(2,\) is none of the model's"):
        record_torch(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1), tmp_path, model=model())


# optax

START = {"hidden": {"kernel": np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)}, "scale": np.ones(2, np.float32)}


def loss_of(params, x):
    return jnp.square(jnp.tanh(x @ params["hidden"]["kernel"]) * params["scale"]).sum()


def walk(tx, way, **extra):
    """Four steps: the parameters and states after each."""

    def step(carry, x):
        params, state = carry
        loss, gradients = jax.value_and_grad(loss_of)(params, x)
        updates, state = tx.update(gradients, state, params, **({"loss": loss, "batch": x} if extra else {}))
        carry = optax.apply_updates(params, updates), state
        return carry, carry

    xs = jnp.asarray(INPUTS.numpy())
    params = jax.tree.map(jnp.asarray, START)
    carry = params, tx.init(params)
    if way == "scan":
        return jax.tree.map(np.asarray, jax.jit(lambda carry: jax.lax.scan(step, carry, xs))(carry)[1])
    seen = []
    for x in xs:
        carry, _ = (jax.jit(step) if way == "jit" else step)(carry, x)
        seen.append(carry)
    return jax.tree.map(lambda *x: np.stack(x), *seen)


@pytest.mark.parametrize("way", ["eager", "jit", "scan"])
@pytest.mark.parametrize("clip", [False, True])
def test_optax_wrapper_records_and_changes_no_bit(tmp_path, way, clip):
    tx, clipping = jaxopt_impl.adam(0.1), jaxopt_impl.clip_by_global_norm(0.1)
    recorder = Recorder(tmp_path, tensors="all")
    ours = walk(recorded(tx, recorder, clip=clipping if clip else None), way, loss=True)
    plain = walk(optax.chain(clipping, tx) if clip else tx, way)
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    jax.tree.map(np.testing.assert_array_equal, ours, plain)
    params, state = ours
    recorder.finish(jax.tree.map(lambda x: x[-1], params))
    trace = read(tmp_path)
    assert [step.number for step in trace.steps()] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(array(trace, 0, "params", "scale"), START["scale"])
    adam = state[1] if clip else state
    for step in range(1, 5):
        np.testing.assert_array_equal(array(trace, step, "params", "scale"), params["scale"][step - 1])
        np.testing.assert_array_equal(array(trace, step, "state", "hidden.kernel", "exp_avg"), adam.exp_avg["hidden"]["kernel"][step - 1])
        assert (array(trace, step, "clipped", "scale") is not None) == clip
        assert array(trace, step, "gradients", "scale") is not None
    assert all("loss" in step.numbers for step in trace.steps() if step.number)


def test_without_finish_the_last_step_has_no_parameters(tmp_path):
    recorder = Recorder(tmp_path)
    walk(recorded(optax.sgd(0.1), recorder), "jit")
    recorder.close()
    stages = {step.number: {leaf.stage for leaf in step.leaves} for step in read(tmp_path).steps()}
    assert stages == {0: {"params"}, **{step: {"gradients", "params"} for step in (1, 2, 3)}, 4: {"gradients"}}


def test_optax_wrapper_refuses_what_it_cannot_record(tmp_path):
    tx = recorded(optax.sgd(0.1), tmp_path)
    state = tx.init(START)
    with pytest.raises(ValueError, match="update needs params"):
        tx.update(START, state)
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), START)
    with pytest.raises(ValueError, match="Cannot `vmap` ordered"):
        jax.vmap(lambda g, p: tx.update(g, state, p))(stacked, stacked)


@pytest.mark.parametrize("key", [jax.random.key(7), jax.random.PRNGKey(7)], ids=["typed", "raw"])
def test_a_key_in_the_state_is_recorded_by_its_bits(key, tmp_path):
    tx = optax.GradientTransformation(lambda params: {"key": key}, lambda updates, state, params=None: (updates, state))
    with Recorder(tmp_path, tensors="all") as recorder:
        ours = recorded(tx, recorder)
        jax.jit(ours.update)(START, ours.init(START), START)
    assert array(read(tmp_path), 1, "state", "", "key").tolist() == [0, 7]


def test_other_extra_arguments_reach_the_transform(tmp_path):
    def update(updates, state, params=None, *, factor: float = 1.0, **_):
        return jax.tree.map(lambda x: factor * x, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda params: (), update)
    tx = recorded(inner, tmp_path)
    updates, _ = tx.update(START, tx.init(START), START, factor=3.0, loss=1.0)
    np.testing.assert_array_equal(updates["scale"], [3, 3])


# Names


def test_a_matching_writes_torchs_names_and_layouts(tmp_path):
    net = torch.nn.ModuleDict({"hidden": torch.nn.Linear(2, 2, bias=False)})
    params = {"hidden": {"kernel": np.array([[1, 2], [3, 4]], np.float32)}}
    matching = interop.Matching(params, net)
    with Recorder(tmp_path, tensors="all", matching=matching) as recorder:
        recorder.step(gradients=params, params=params, state=optax.adam(0.1).init(params))
    trace = read(tmp_path)
    assert array(trace, 1, "params", "hidden.weight").tolist() == [[1, 3], [2, 4]]
    assert {(leaf.field, leaf.path) for leaf in trace.leaves if leaf.stage == "state"} == {
        *(("mu", "hidden.weight"), ("nu", "hidden.weight"), ("count", "")),
    }
