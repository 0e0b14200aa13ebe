"""Nothing is missing from the table."""

import inspect

import pytest

import jaxopt_impl
import torch_ref
from optparity.registry import OPTIMIZERS, TORCH_NAMES

from . import oracle

NOT_ARITHMETIC = {"params", "foreach", "fused", "differentiable", "capturable", "decoupled_weight_decay"}


def test_every_optimizer_has_rows_and_an_oracle():
    assert list(OPTIMIZERS) == list(jaxopt_impl.OPTIMIZERS) == list(torch_ref.OPTIMIZERS) == list(oracle.RULES)
    assert all("default" in entry.rows for entry in OPTIMIZERS.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_argument_is_away_from_its_default_in_some_row(name):
    parameters = inspect.signature(jaxopt_impl.OPTIMIZERS[name]).parameters
    for argument, parameter in parameters.items():
        if argument != "learning_rate":
            assert any(row.get(argument, parameter.default) != parameter.default for row in OPTIMIZERS[name].rows.values()), argument


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_both_sides_take_the_same_arguments(name):
    ours = {TORCH_NAMES.get(k, k): v.default for k, v in inspect.signature(jaxopt_impl.OPTIMIZERS[name]).parameters.items()}
    theirs = {k: v.default for k, v in inspect.signature(torch_ref.OPTIMIZERS[name]).parameters.items() if k not in NOT_ARITHMETIC}
    if "betas" in theirs:
        theirs["b1"], theirs["b2"] = theirs.pop("betas")
    assert set(ours) == set(theirs)
    for argument in set(ours) - {"lr"}:
        assert ours[argument] == theirs[argument], argument
