"""`search` and `--search`: the largest batch, and no larger."""

# pyright: reportArgumentType=false
# A Cruncher is refused, which the types forbid too.

from dataclasses import replace

import pytest

from optparity.accounting import Cruncher, Setup, estimate, search

from ..cli.running import optparity
from .models import preset


def test_the_largest_batch_and_no_larger():
    setup = Setup(mixed_precision=True, attention="sdpa", zero_stage=0, microbatches=2)
    found = list(search(preset("gpt2"), 512, setup, 5, 0.1))
    assert [one.recompute for one in found] == ["none", "selective", "alternate", "full"]
    for one in found:
        of = replace(setup, zero_stage=one.zero_stage, recompute=one.recompute)
        assert one.batch % 2 == 0
        assert one.batch > 0
        assert estimate(preset("gpt2"), one.batch, 512, of).memory[1].fits(5, 0.1)
        assert not estimate(preset("gpt2"), one.batch + 2, 512, of).memory[1].fits(5, 0.1)
    most = {one.recompute: one.batch for one in found}
    assert most["none"] < most["alternate"] < most["full"]


def test_stages_of_zero_need_several_devices():
    setup = Setup(mixed_precision=True, data_parallel=8)
    assert [one.zero_stage for one in search(preset("gpt2"), 8, setup, 0.001)] == [stage for stage in range(4) for _ in range(3)]


def test_nothing_fits(monkeypatch, capsys):
    status, out, _ = optparity(monkeypatch, capsys, "cost", "gpt2", "--seq", 64, "--search", 1)
    assert status == 1
    assert out.splitlines()[0] == "gpt2: the largest batch of 64 tokens in 1 GB per device"
    assert out.count(" none ") >= 3


def test_search_needs_a_transformer():
    with pytest.raises(ValueError, match=r"^search: a Transformer is needed; got Cruncher\(dim=4, num_layers=2\)\.$"):
        list(search(Cruncher(4, 2), 8, Setup(), 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpt2", "--search", "80", "--fits", "80"], "--search: --fits is for one estimate; leave one of the two out."),
        (["gpt2", "--search", "80", "--batch", "2"], "--search: --batch is for one estimate; leave one of the two out."),
        (["gpt2", "--search", "0"], "--search 0: a finite number > 0 is needed."),
        (["gpt2", "--search", "inf"], "--search inf: a finite number > 0 is needed."),
        (["cruncher", "--search", "1"], "--search: a transformer and --seq are needed; got cruncher."),
        (["gpt2", "--loss", "fused"], "Invalid value for '--loss': 'fused' is not one of '"),
        (["gpt2", "--loss-chunk", "0"], "Invalid value for '--loss-chunk'"),
        (["gpt2", "--moments", "2-bit"], "Invalid value for '--moments': '2-bit' is not one of '"),
        (["gpt2", "--moments", "8-bit", "--optimizer", "lion"], "setup with moments: optimizer is one of adam, adamw; got 'lion'."),
        (["gpt2", "--moments", "8-bit", "--framework", "jax"], "setup with moments: framework is one of torch; got 'jax'."),
        (["gpt2", "--moments", "8-bit", "--option", "mu_dtype=bfloat16"], "setup with moments: mu_dtype is None; got 'bfloat16'."),
        (["gpt2", "--microbatches", "3", "--batch", "4"], "transformer: microbatches divides the batch; got 3 and 4."),
        (
            ["gpt2", "--pipeline-parallel", "13"],
            "setup: pipeline_parallel × pipeline_chunks is at most the number of layers; ",
        ),
        (["gpt2", "--pipeline-chunks", "2"], "setup: schedule and pipeline_chunks are for pipeline_parallel of 2 and more; got 1."),
        (
            ["gpt2", "--pipeline-parallel", "2", "--pipeline-chunks", "2"],
            "setup with pipeline_chunks: pipeline_parallel divides microb",
        ),
        (["gpt2", "--context-parallel", "2"], "setup with context_parallel: attention is sdpa; got 'written-out'."),
        (["gpt2", "--context-parallel", "3", "--attention", "sdpa"], "transformer: context_parallel divides the sequence; got 3 and 1024."),
        (
            ["gpt2", "--recompute", "alternate"],
            "setup with recompute alternate: attention is sdpa and tensor_p",
        ),
        (["gpt2", "--margin", "-1"], "--margin -1: a finite number >= 0 is needed."),
        (["cruncher", "--pipeline-parallel", "2"], "cruncher: pipeline_parallel is for a transformer; got 2."),
    ],
)
def test_contradictions(monkeypatch, capsys, arguments, message):
    status, out, err = optparity(monkeypatch, capsys, "cost", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"optparity: {message}")
    assert err.count("\n") == 1
