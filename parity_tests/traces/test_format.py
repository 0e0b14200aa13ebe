"""A trace says what the run had; a killed run's is readable, and a damaged one is refused where it is damaged."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from optparity import Recorder
from optparity.traces import lines
from optparity.traces.reading import traces
from optparity.traces.recorder import STEPS
from optparity.traces.summaries import PERIOD, Summary, copied, plain, summaries

from ..sampling import EXHAUSTIVE


def record(folder, steps=3, **options):
    """A run of two leaves; the arrays of its last step."""
    rng = np.random.default_rng(0)
    draw = lambda: {"dense": {"kernel": rng.standard_normal((3, 2)).astype("f")}, "scale": rng.standard_normal(5).astype("f")}  # noqa: E731
    with Recorder(folder, **options) as recorder:
        recorder.start(draw())
        for step in range(steps):
            gradients, params = draw(), draw()
            recorder.step(loss=1 / (step + 1), lr=[0.1, 0.2], gradients=gradients, params=params, state={"mu": gradients, "count": step})
    return gradients, params


def one(folder):
    return traces(folder)[0]


def summary(*arrays) -> list[Summary]:
    return summaries(copied([plain(x) for x in arrays]), len(arrays))


# What is said of an array


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("size", [0, 1, 3, 1000, PERIOD + 5, 3 * PERIOD])
def test_norm_extremes_and_hash_are_those_of_the_array(dtype, size):
    x = np.random.default_rng(0).standard_normal(size).astype(jnp.dtype(dtype))
    some = np.array([1, -2, 3], x.dtype)
    before, found, after = summary(some, x, some)
    numbers = x.astype(np.float64)
    assert before == after
    assert found.norm == pytest.approx(np.linalg.norm(numbers), rel=1e-14)
    assert (found.low, found.high) == ((numbers.min(), numbers.max()) if size else (None, None))
    assert found.nonfinite == 0
    assert summary(x)[0] == found


def test_what_is_not_finite_is_counted_and_the_rest_is_measured():
    x = np.array([np.nan, 3, -4, np.inf, -np.inf], np.float32)
    found, nothing = summary(x, np.array([np.nan], np.float32))
    assert (found.nonfinite, found.norm, found.low, found.high) == (3, 5, -4, 3)
    assert (nothing.nonfinite, nothing.norm, nothing.low) == (1, 0, None)


def test_a_hash_is_of_the_bits_whatever_holds_them():
    x = np.array([[1.5, -0.0], [np.nan, 3]], np.float32)
    other_nan = x.view(np.uint32).copy()
    other_nan[1, 0] ^= 1
    same = [x, jnp.asarray(x), torch.tensor(x), torch.nn.Parameter(torch.tensor(x)), other_nan.view(np.float32), np.asfortranarray(x)]
    assert len({each.hash for each in summary(*same)}) == 1
    hashes = [each.hash for each in summary(x, np.abs(x), np.nextafter(x, np.float32(9)), x.T)]
    assert len(set(hashes)) == 4
    counts = summary(np.array([1, 2], np.int32), np.array([1, 2], np.int64), torch.tensor([1, 2]), np.array([2, 1]))
    assert [each.hash == counts[0].hash for each in counts] == [True, True, True, False]


@pytest.mark.parametrize("size", [1, 10, 5000, 200_000])
@pytest.mark.parametrize("scale", [1e-7, 1e-2, 1])
def test_projections_tell_about_how_far_apart_arrays_are(size, scale):
    rng = np.random.default_rng(size)
    x = rng.standard_normal(size)
    y = x + scale * rng.standard_normal(size)
    first, second = summary(x, y)
    assert 0.05 < first.apart(second) / np.linalg.norm(x - y) < 5
    assert first.apart(first) == 0


def test_what_is_no_real_number_is_refused():
    for value in (np.array([1j]), torch.tensor([1j]), np.array(["a"])):
        with pytest.raises(TypeError, match=r"real numbers (are|is) needed|of real numbers"):
            plain(value)
    assert plain(jax.random.key(0)).dtype == np.uint32


# What is written is read


def test_what_is_recorded_is_read(tmp_path):
    gradients, params = record(tmp_path, tensors="all")
    trace = one(tmp_path)
    assert (trace.first, trace.last, trace.torn) == (0, 3, False)
    assert (trace.header["framework"], trace.header["tensors"]) == ("numpy", "all")
    step = list(trace.steps())[-1]
    assert step.numbers == {"loss": {"": 1 / 3}, "lr": {"0": 0.1, "1": 0.2}}
    assert [str(leaf.place) for leaf in step.leaves] == [
        *("gradients['dense.kernel']", "gradients['scale']", "count", "mu['dense.kernel']", "mu['scale']"),
        *("params['dense.kernel']", "params['scale']"),
    ]
    for leaf, found in step.leaves.items():
        tree = {"gradients": gradients, "params": params}.get(leaf.stage, gradients)
        expected = np.array(2) if leaf.field == "count" else tree["scale"] if leaf.path == "scale" else tree["dense"]["kernel"]
        np.testing.assert_array_equal(trace.tensor(3, leaf), expected, strict=True)
        assert found == summary(expected)[0]


def test_tensors_are_kept_as_asked(tmp_path):
    for name, options in {"none": {}, "some": {"tensors": "gradients"}, "second": {"tensors": "gradients", "every": 2}}.items():
        record(tmp_path / name, 4, **options)
    kept = {
        name: {
            (step.number, leaf.stage)
            for step in one(tmp_path / name).steps()
            for leaf in step.leaves
            if trace.tensor(step.number, leaf) is not None
        }
        for name in ("none", "some", "second")
        for trace in [one(tmp_path / name)]
    }
    assert kept["none"] == set()
    assert kept["some"] == {(0, "params"), *((step, "gradients") for step in (1, 2, 3, 4))}
    assert kept["second"] == {(0, "params"), (2, "gradients"), (4, "gradients")}


def test_shards_are_of_the_size_that_is_asked_for(tmp_path):
    record(tmp_path, 6, tensors="gradients", shard_mib=100 / 2**20)  # a step has 44 bytes
    trace = one(tmp_path)
    assert [(shard.first, shard.last) for shard in trace.shards] == [(0, 2), (3, 5), (6, 6)]
    leaf = next(leaf for leaf in trace.leaves if leaf.stage == "gradients")
    assert all(trace.tensor(step, leaf) is not None for step in range(1, 7))


def test_the_lines_are_json_that_anything_reads(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.step(loss=float("nan"), gradients={"w": np.full(3, 1e308)}, params={"w": np.full(2, np.inf)})
    refuse = lambda name: pytest.fail(name)  # noqa: E731
    said = [json.loads(line, parse_constant=refuse) for line in (tmp_path / "rank-0" / STEPS).read_text().splitlines()]
    assert [next(iter(each)) for each in said] == ["trace", "table", "step"]
    (step,) = one(tmp_path).steps()
    assert np.isnan(step.numbers["loss"][""])
    assert [each.norm for each in step.leaves.values()] == [np.inf, 0]


def test_leaves_may_change_from_step_to_step(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.step(gradients={"a": np.ones(2), "b": None})
        recorder.step(gradients={"a": np.ones(2), "b": np.zeros(3)})
        recorder.step(gradients={"a": np.ones(2), "b": None})
    assert [[leaf.path for leaf in step.leaves] for step in one(tmp_path).steps()] == [["a"], ["a", "b"], ["a"]]


def test_arrays_may_be_overwritten_as_soon_as_they_are_recorded(tmp_path):
    x = np.ones(1000, np.float32)
    with Recorder(tmp_path, tensors="all") as recorder:
        for step in range(1, 6):
            x[:] = step
            recorder.step(params={"x": x})
        x[:] = -1
    trace = one(tmp_path)
    assert [next(iter(step.leaves.values())).value for step in trace.steps()] == [1, 2, 3, 4, 5]
    (leaf,) = trace.leaves
    assert [np.asarray(trace.tensor(step, leaf))[0] for step in range(1, 6)] == [1, 2, 3, 4, 5]


# Killed, and damaged


def test_a_torn_last_line_is_left_out_and_said(tmp_path):
    record(tmp_path)
    file = tmp_path / "rank-0" / STEPS
    whole = file.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for left in range(1, last, 7):
        file.write_bytes(whole[: len(whole) - last + left])
        assert (one(tmp_path).last, one(tmp_path).torn) == (2, True)
    file.write_bytes(whole[:-last])
    assert (one(tmp_path).last, one(tmp_path).torn) == (2, False)


def test_a_changed_byte_is_found_where_it_is(tmp_path):
    record(tmp_path, 2)
    file = tmp_path / "rank-0" / STEPS
    whole = file.read_bytes()
    for at in range(0, len(whole) - 1, 11):
        changed = bytearray(whole)
        changed[at] ^= 4
        file.write_bytes(changed)
        number = whole[:at].count(b"\n") + 1
        with pytest.raises(ValueError, match=rf"{STEPS}, line {number}: damaged"):
            one(tmp_path)


@pytest.mark.parametrize("order", [[0, 1, 2, 4], [0, 1, 2, 3, 3, 4], [0, 1, 2, 4, 3]], ids=["a line is gone", "doubled", "moved"])
def test_lines_that_are_not_as_they_were_are_found(tmp_path, order):
    record(tmp_path, 3)
    file = tmp_path / "rank-0" / STEPS
    written = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(written[i] for i in order))
    with pytest.raises(ValueError, match=r"line \d: damaged"):
        one(tmp_path)


def test_a_changed_shard_is_refused_and_so_is_one_that_is_gone(tmp_path):
    record(tmp_path, tensors="all")
    (shard,) = (tmp_path / "rank-0").glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    trace = one(tmp_path)
    with pytest.raises(ValueError, match=rf"{shard.name}: damaged: its SHA-256"):
        trace.tensor(1, next(iter(trace.leaves)))
    shard.unlink()
    with pytest.raises(ValueError, match=rf"line \d+: the shard {shard.name} is not there"):
        one(tmp_path)


def test_what_is_no_trace_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no trace: it has no rank-0/steps"):
        one(tmp_path)
    Recorder(tmp_path).close()
    with pytest.raises(ValueError, match="is a trace without a step"):
        one(tmp_path)
    line, _ = lines.encoded({"trace": 2}, "")
    (tmp_path / "rank-0" / STEPS).write_bytes(line)
    with pytest.raises(ValueError, match="is of version 2 of the format; this optparity reads 1"):
        one(tmp_path)


KILLED = """
import sys, numpy as np
from optparity import Recorder
recorder = Recorder(sys.argv[1], tensors="gradients", shard_mib=0.01)
recorder.start({"w": np.zeros(1000, "f")})
for step in range(10**9):
    recorder.step(loss=step, gradients={"w": np.full(1000, step, "f")}, params={"w": np.zeros(1000, "f")})
    if step == 50:
        print("ready", flush=True)
"""


@EXHAUSTIVE
def test_a_killed_run_leaves_a_readable_trace(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(0.2)
        os.kill(process.pid, signal.SIGKILL)
    trace = one(tmp_path)
    assert trace.last >= 40
    leaf = next(leaf for leaf in trace.leaves if leaf.stage == "gradients")
    for step in trace.steps():
        kept = trace.tensor(step.number, leaf) if step.number else None
        assert kept is None or (kept == step.number - 1).all()
    assert trace.tensor(30, leaf) is not None
    with Recorder(tmp_path, tensors="gradients", resume=True) as recorder:
        recorder.step(loss=0.0)
    assert one(tmp_path).last == trace.last + 1


# Two recorders, and one that goes on


def test_a_second_recorder_is_refused_but_for_another_rank(tmp_path):
    record(tmp_path)
    with pytest.raises(ValueError, match="rank-0 holds a trace already; resume=True goes on with it"):
        Recorder(tmp_path)
    record(tmp_path, rank=3)
    assert list(traces(tmp_path)) == [0, 3]


def test_a_trace_goes_on_after_its_last_step_or_an_earlier_one(tmp_path):
    record(tmp_path, 5, tensors="gradients")
    file = tmp_path / "rank-0" / STEPS
    file.write_bytes(file.read_bytes() + b'{"step": 6, "tab')
    for resume, last in ((True, 6), (3, 4)):
        with Recorder(tmp_path, tensors="gradients", resume=resume) as recorder:
            recorder.start({"w": np.zeros(1)})  # it has its start
            recorder.step(loss=-1.0)
        trace = one(tmp_path)
        assert [step.number for step in trace.steps()] == list(range(last + 1))
        assert list(trace.steps())[-1].numbers == {"loss": {"": -1}}


def test_what_cannot_be_resumed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no trace to resume"):
        Recorder(tmp_path, resume=True)
    record(tmp_path)
    with pytest.raises(ValueError, match="ends at step 3; it cannot be resumed after step 9"):
        Recorder(tmp_path, resume=9)
    with pytest.raises(ValueError, match="was begun with tensors=None, every=1; give the same"):
        Recorder(tmp_path, resume=True, tensors="all")


def test_bad_arguments_are_refused(tmp_path):
    for options, message in [
        ({"tensors": "some"}, "tensors is None, 'gradients' or 'all'; got 'some'"),
        ({"every": 0}, "every is an integer >= 1; got 0"),
        ({"rank": -1}, "rank is an integer >= 0; got -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Recorder(tmp_path, **options)
    with Recorder(tmp_path) as recorder:
        with pytest.raises(ValueError, match="a step has loss, lr, batch"):
            recorder.step(weights=1)
        with pytest.raises(TypeError, match="loss is a number"):
            recorder.step(loss=np.ones(2))
        with pytest.raises(ValueError, match="a step with nothing in it"):
            recorder.step()
    with pytest.raises(ValueError, match="is closed"):
        recorder.step(loss=1.0)


def test_what_fails_while_writing_is_raised_in_the_run(tmp_path):
    recorder = Recorder(tmp_path)
    recorder._file.close()
    recorder._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    recorder.step(loss=1.0)
    recorder._queue.join()
    with pytest.raises(OSError, match="No space left"):
        recorder.step(loss=1.0)
    with pytest.raises(OSError, match="No space left"):
        recorder.close()
