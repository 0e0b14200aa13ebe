"""Which fields of two states belong together."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
import torch
from jax.tree_util import keystr, tree_flatten_with_path

from optparity.versus.states import KNOWN, fields_of_tree, paired

PARAMS = {"layer": {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}, "out": jnp.zeros(2)}


def fields(state, params=PARAMS):
    return fields_of_tree(state, [keystr(path) for path, _ in tree_flatten_with_path(params)[0]])


def test_fields_are_found_wherever_they_stand():
    found = fields(optax.chain(optax.clip(1.0), optax.adam(0.1)).init(PARAMS))
    assert list(found) == ["count", "mu", "nu"]
    assert list(found["mu"]) == ["['layer']['b']", "['layer']['w']", "['out']"]
    assert list(found["count"]) == [""]


def test_a_name_that_comes_twice_is_numbered():
    found = fields(optax.chain(optax.scale_by_adam(), optax.scale_by_adam()).init(PARAMS))
    assert list(found) == ["count", "mu", "nu", "count (2)", "mu (2)", "nu (2)"]


def test_parts_that_share_out_the_leaves_are_one_field():
    labels = {"layer": {"w": "a", "b": "a"}, "out": "b"}
    found = fields(optax.partition({"a": optax.adam(0.1), "b": optax.adam(0.2)}, labels).init(PARAMS))
    assert list(found["mu"]) == ["['layer']['b']", "['layer']['w']", "['out']"]
    assert "mu (2)" not in found


class Own(NamedTuple):
    velocity: dict
    key: jax.Array


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (PARAMS, ["state"]),
        ((PARAMS, PARAMS), ["[0]", "[1]"]),
        ({"first": PARAMS, "n": jnp.zeros([], int)}, ["first", "n"]),
        (Own(PARAMS, jax.random.key(0)), ["velocity"]),
        (optax.EmptyState(), []),
    ],
)
def test_states_without_names_and_of_other_makers(state, names):
    assert list(fields(state)) == names


def test_a_tree_that_is_one_array():
    """Every leaf has its path, which is empty."""
    x = jnp.zeros(3)
    assert {name: x.shape for name, of in fields(optax.adam(0.1).init(x), x).items() for x in of.values()} == {
        "count": (),
        "mu": (3,),
        "nu": (3,),
    }


@pytest.mark.parametrize(
    ("first", "second", "given", "pairs"),
    [
        (["count", "mu", "nu"], ["step", "exp_avg", "exp_avg_sq"], {}, {"count": "step", "mu": "exp_avg", "nu": "exp_avg_sq"}),
        (["step", "exp_avg"], ["mu", "count"], {}, {"step": "count", "exp_avg": "mu"}),
        (["mu", "nu"], ["square_avg", "grad_avg"], {}, {"mu": "grad_avg", "nu": "square_avg"}),
        (["e_g", "e_x"], ["square_avg", "acc_delta"], {}, {"e_g": "square_avg", "e_x": "acc_delta"}),
        (["mu"], ["exp_avg", "momentum_buffer"], {}, {"mu": "exp_avg"}),  # each field once
        (["mu", "trace"], ["momentum_buffer"], {}, {"mu": "momentum_buffer"}),
        (["mu"], ["mu", "exp_avg"], {}, {"mu": "mu"}),  # one name comes before known ones
        (["mu"], ["mu", "exp_avg"], {"mu": "exp_avg"}, {"mu": "exp_avg"}),  # what is given before all
        (["a"], ["b"], {}, {}),
    ],
)
def test_pairs(first, second, given, pairs):
    assert paired(first, second, given) == pairs


def test_the_names_that_are_known_are_there():
    """In the sources of optax and torch, so that none is misspelled."""
    import pkgutil
    from pathlib import Path

    sources = {
        package.__name__: "".join(path.read_text() for path in Path(package.__path__[0]).rglob("*.py")) for package in (optax, torch.optim)
    }
    for ours, theirs in KNOWN:
        assert f"  {ours}: " in sources["optax"], ours
        assert any(f"{mark}{theirs}{mark}" in sources["torch.optim"] for mark in ("'", '"')), theirs
    assert pkgutil
