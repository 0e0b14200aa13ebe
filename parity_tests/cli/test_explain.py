"""`optparity explain`: what torch.optim and optax mean by one name."""

from optparity.explain import stock

from .running import one_line, optparity


def test_explain(monkeypatch, capsys):
    status, out, err = optparity(monkeypatch, capsys, "explain", "radam")
    assert (status, err) == (0, "")
    assert out.startswith("radam: the same numbers, up to rounding.\ntorch adds epsilon before")
    assert "torch.optim.RAdam(params, lr=0.001, eps=1e-30)\n  optax.radam(learning_rate=0.001, eps=1e-30)\n" in out
    assert "defaults of both, one learning rate 0 2e-08 nearest settings 0 rounding" in " ".join(out.split())
    for part in ("exp_avg_sq", "count, mu, nu", "threshold=5.0"):
        assert part in out


def test_the_page(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(stock, "STOCK", {"sgd": stock.STOCK["sgd"]})
    status, out, _ = optparity(monkeypatch, capsys, "explain", "--page", tmp_path / "page.md")
    assert (status, out) == (0, f"1 optimizers written to {tmp_path / 'page.md'}\n")
    assert "| [`sgd`](#sgd) | rounding | rounding | rounding | rounding |" in (tmp_path / "page.md").read_text()


def test_bad_arguments_of_explain(monkeypatch, capsys):
    one_line(*optparity(monkeypatch, capsys, "explain"), "explain: a name or --page FILE.md is needed, and not both.")
    one_line(*optparity(monkeypatch, capsys, "explain", "adam", "--page", "x.md"), "explain: a name or --page FILE.md is needed")
    one_line(*optparity(monkeypatch, capsys, "explain", "adamm"), "'adamm' is not one of 'adadelta', 'adafactor'")
    one_line(*optparity(monkeypatch, capsys, "explain", "--page", "/proc/no/page.md"), "/proc/no/page.md cannot be written")
