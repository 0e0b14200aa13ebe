"""What torch.optim and optax mean by one name: every name is there, and the page says what is measured."""

from dataclasses import replace

import optax
import optax.contrib
import pytest

from optparity.drift import markdown_table
from optparity.explain import stock
from optparity.explain.stock import STOCK, WITHIN
from tools.pages import ROOT

from ..sampling import sampled

PAGE = (ROOT / "docs" / "which_differs.md").read_text()
CHEAP = ("adagrad", "radam", "rprop", "sgd")
DIGITS_OF_THE_MACHINE = ("muon",)  # its products of bfloat16 matrices are summed in another order on another CPU


def test_every_name_that_both_have_is_there():
    assert {"adam", "muon", "sgd"} <= set(stock.shared())
    assert set(stock.shared()) == {name for name, one in STOCK.items() if one.torch_class.lower() == name}
    for name, one in STOCK.items():
        assert one.in_optax in (f"optax.{name}", f"optax.contrib.{name}")
        assert one.optax is getattr(optax, name, None) or one.optax is getattr(optax.contrib, name)
        assert bool(one.flags) == (name not in stock.shared())


def test_the_page_names_what_is_in_torch_only():
    assert stock.only_in_torch() == ["ASGD", "SparseAdam"]
    assert "torch.optim has `ASGD` and `SparseAdam` besides" in PAGE


@pytest.mark.parametrize("name", STOCK)
def test_the_page_says_what_is_written(name):
    """Rules, defaults as they are now, and settings; the numbers are those of the next test."""
    (section,) = (section for section in PAGE.split("\n## ") if section.startswith(f"{name}\n"))
    one = STOCK[name]
    assert one.why in section
    for rule in one.rules:
        assert f"```text\n{rule.replace('; ', chr(10))}\n```" in section
    for arguments in one.defaults():
        assert ", ".join(f"`{each}`" for each in stock.listed(arguments)) in section
    calls = "\n".join(one.calls(nearest=True))
    assert f"({stock.LEFT[one.agrees]}):\n\n```text\n{calls}\n```" in section


@pytest.mark.parametrize("name", sampled(((name,) for name in STOCK), lambda name: name in CHEAP))
def test_the_page_says_what_is_measured(name):
    apart = stock.measure(name)
    agrees = STOCK[name].agrees
    assert max(apart.nearest) <= WITHIN[agrees] if agrees in WITHIN else apart.nearest[-1] > 1e-3
    if agrees == "float32":
        assert max(apart.nearest) > WITHIN["rounding"]
    one = stock.page({name: apart}, [], markdown_table)
    section = one.split("\n## ")[1].strip()
    assert section in PAGE
    (line,) = (line for line in one.splitlines() if line.startswith(f"| [`{name}`](#{name})"))
    assert name in DIGITS_OF_THE_MACHINE or line in PAGE


def test_settings_that_do_not_agree_are_seen(monkeypatch):
    """Each of the settings of adagrad is needed."""
    one = STOCK["adagrad"]
    for nearest in (({}, one.nearest[1]), (one.nearest[0], {"eps": 0.0}), (one.nearest[0], {"initial_accumulator_value": 0.0})):
        monkeypatch.setitem(STOCK, "adagrad", replace(one, nearest=nearest))
        assert max(stock.measure("adagrad").nearest) > WITHIN["rounding"]


@pytest.mark.parametrize(
    ("distance", "expected"),
    [(0.0, "0"), (1e-15, "rounding"), (2.2e-8, "2e-08"), (0.0155, "1.6 %"), (0.3949, "39 %"), (0.9974, "100 %"), (30.6, "3060 %")],
)
def test_distances_are_said_in_few_digits(distance, expected):
    assert stock.said(distance) == expected
