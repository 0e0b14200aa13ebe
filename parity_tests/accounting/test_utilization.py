"""MFU as published."""

import pytest

from optparity.accounting import mfu

from ..cli.running import optparity
from .models import preset, read
from .public import PUBLIC


def test_palms_mfu(monkeypatch, capsys):
    """238.3 thousand tokens a second on 6,144 TPU v4: 46.2 %, and 45.7 % without attention (arXiv 2204.02311, appendix B)."""
    seconds = 2048 * 2048 / 238.3e3
    part = lambda name: mfu(preset("palm-540b").flops(2048, 2048, name), seconds, 6144, "tpu-v4")  # noqa: E731
    assert round(part("palm"), 3) == 0.462
    assert round(part("6nd"), 3) == 0.457
    run = ("--seq", 2048, "--batch", 4, "--tensor-parallel", 12, "--data-parallel", 512)
    status, out, err = optparity(monkeypatch, capsys, "cost", "palm-540b", *run, "--step-time", seconds, "--peak", "tpu-v4")
    assert (status, err) == (0, "")
    assert "of 6,144 × tpu-v4 at 2.75e+14 FLOPs a second: 6nd 45.7 %," in out
    assert "palm 46.2 %" in out


def test_experts_count_by_the_active():
    """DeepSeek-V3 on 2,048 H800: 272.80 billion tokens a day are 432 TFLOPs a second of each, and 385 with causal attention.

    arXiv 2505.09343, table 4. Here they are 433 and 386.
    """
    model = read(PUBLIC["DeepSeek-V3"].config)
    assert model.flops(1, 1000, "6nd") == 6 * 1000 * model.active_parameters
    sequences = 272.80e9 / 86400 / 2048 / 4096  # a second
    for convention, published in {"executed": 432e12, "causal": 385e12}.items():
        assert sequences * model.flops(1, 4096, convention) == pytest.approx(published, rel=0.004)


WINDOW = {"sliding_window": 300}


def test_a_window_is_counted_as_maxtext_does():
    """s w - w^2/2 pairs with a window of w tokens, s^2/2 without or where the window is no less (AI-Hypercomputer/maxtext#1988, #2009)."""
    how = {**vars(preset("llama2-7b")), "num_hidden_layers": 4}
    whole, windowed, mixed = (read(how | more) for more in ({}, WINDOW, {**WINDOW, "full_attention_every": 2}))

    def attention(model, seq):
        others = model.forward_flops(1, seq) - 4 * 4 * seq * seq * 4096
        return model.flops(1, seq, "causal") - 3 * others

    pair = 3 * 4 * 4096  # two products, 2 FLOPs, forward and twice backward, of all heads
    assert attention(whole, 1000) == pair * 4 * 1000 * 1000 // 2
    assert attention(windowed, 1000) == pair * 4 * (1000 * 300 - 300 * 300 // 2)
    assert attention(mixed, 1000) == (attention(whole, 1000) + attention(windowed, 1000)) // 2
    assert attention(windowed, 200) == attention(whole, 200)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0, 1, "a100"), r"^mfu: seconds is a number > 0; got 0\.$"),
        ((1, True, 1, "a100"), r"^mfu: seconds is a number > 0; got True\.$"),
        ((1, 1.0, 0, "a100"), r"^mfu: devices is an integer >= 1; got 0\.$"),
        ((1, 1.0, 1, "z80"), r"^mfu: peak is one of v100, a100, .*; got 'z80'\.$"),
    ],
)
def test_bad_measurements(arguments, message):
    with pytest.raises(ValueError, match=message):
        mfu(*arguments)
