"""Nothing is missing from the table."""

import inspect

import jax.numpy as jnp
import pytest
import torch

from optparity.around import PIECES
from optparity.registry import OPTIMIZERS, ROWS
from optparity.training.tasks import TASKS

from . import oracle

NOT_ARITHMETIC = {"params", "foreach", "fused", "differentiable", "capturable"}


@pytest.mark.parametrize("entry", OPTIMIZERS.values(), ids=lambda entry: entry.name)
def test_no_part_of_an_entry_is_missing(entry):
    """Each part is there and fits the others; what fails names the part."""
    assert hasattr(oracle, entry.name), "oracle"
    assert {"default", "maximize", "all", "accumulator"} <= entry.rows.keys() | {"maximize"}, "rows"
    assert entry.fences.keys() == entry.rows.keys(), "fences"
    assert entry.temporaries.keys() <= entry.rows.keys(), "temporaries"
    assert entry.refused, "refused"
    assert entry.learning_rates.keys() <= {"digits", *TASKS}, "learning_rates"
    assert "digits" in entry.learning_rates, "learning_rates"
    assert entry.drift_row in entry.rows, "drift_row"
    assert set(entry.benchmark_rows) <= entry.rows.keys(), "benchmark_rows"
    assert entry.extra_keys.keys() <= entry.group_keys.keys(), "extra_keys"
    assert entry.stock_optax.states or entry.stock_optax.refused, "stock_optax"


@pytest.mark.parametrize("entry", OPTIMIZERS.values(), ids=lambda entry: entry.name)
def test_an_entry_says_what_the_class_in_torch_does(entry):
    """Group keys, `step`, and what is there before the first step."""
    optimizer = entry.torch([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    (group,) = optimizer.param_groups
    assert group.keys() - {"params"} == {*entry.group_keys, *entry.group_data} - {*entry.variant} | entry.variant.keys() & group.keys()
    assert entry.torch.has_step == entry.has_step, "has_step"
    assert entry.torch.extra_keys == entry.extra_keys, "extra_keys"
    assert bool(optimizer.state) == entry.starts_with_state, "starts_with_state"


@pytest.mark.parametrize("row", [row for row in ROWS if row.label in ("all", "nesterov, all")], ids=str)
def test_an_entry_says_which_arguments_keep_a_field(row):
    """Without its argument a field of `optional_state` is not kept; every other field is, in each row."""
    state = row.entry.jax(0.1).init(jnp.zeros(1))._asdict()
    absent = {field for field, value in state.items() if value is None}
    assert absent == row.entry.optional_state.keys()
    for field, arguments in row.entry.optional_state.items():
        assert getattr(row.entry.jax(0.1, **arguments).init(jnp.zeros(1)), field) is not None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_argument_is_away_from_its_default_in_some_row(name):
    around = [row for row in PIECES["mu_dtype"].rows.values() if row["optimizer"] == name]
    for argument, default in OPTIMIZERS[name].defaults.items():
        if argument != "learning_rate":
            assert any(row.get(argument, default) != default for row in (*OPTIMIZERS[name].rows.values(), *around)), argument


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_both_sides_take_the_same_arguments(name):
    entry = OPTIMIZERS[name]
    ours = entry.in_torch(entry.defaults)
    parameters = inspect.signature(entry.torch).parameters
    theirs = {k: v.default for k, v in parameters.items() if k not in NOT_ARITHMETIC and k not in entry.variant}
    assert set(ours) == set(theirs)
    for argument in set(ours) - {"lr"}:
        assert ours[argument] == theirs[argument], argument
