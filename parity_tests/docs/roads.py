"""A script of examples/roads, run here: what it prints, where each moment went, and what the two models say afterwards."""

import re
import runpy
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from tools.pages import ROOT

from .test_blocks import same

FOLDER = ROOT / "examples" / "roads"


class Road(NamedTuple):
    """What a test knows of a road by itself.

    Attributes:
        page: its page in docs/roads.
        state: the state in JAX, of the variables of the script, that torch's `optimizer` has as well.
        name: path of a leaf -> the parameter's name in torch.
        outputs: what the model says in torch and in JAX, of the variables.
        layout: a torch array as the leaf at a path.
    """

    page: str
    state: Callable[[Mapping], Any]
    name: Callable[[str], str]
    outputs: Callable[[Mapping], tuple[Any, Any]]
    layout: Callable[[str, np.ndarray], np.ndarray] = lambda path, array: array.T if path.endswith("kernel") else array


def travel(script: str, road: Road, monkeypatch, tmp_path, capsys) -> None:
    """Run a script, and check it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    variables = runpy.run_path(str(FOLDER / f"{script}.py"))
    printed = capsys.readouterr().out
    assert "same bits after there and back: True, of " in printed
    (shown,) = re.findall(r"```text\n(.*?)```", (ROOT / "docs" / "roads" / f"{road.page}.md").read_text(), re.DOTALL)
    assert same(shown, printed), printed
    assert_each_moment_is_at_its_parameter(road, variables)
    theirs, ours = road.outputs(variables)
    np.testing.assert_allclose(np.asarray(ours), theirs.detach().numpy(), rtol=1e-4, atol=1e-4)


def assert_each_moment_is_at_its_parameter(road: Road, variables: Mapping) -> None:
    """By names that are written in the tests, and values, of which no two are the same."""
    state, moments = road.state(variables), _moments_in_torch(variables)
    seen = []
    for field in ("exp_avg", "exp_avg_sq"):
        for path, leaf in _by_path(getattr(state, field)).items():
            there = moments[road.name(path)]
            assert (np.asarray(leaf) == road.layout(path, there[field].numpy())).all(), f"{field} of {path}"
            assert int(state.step) == there["step"].item(), path
            seen.append(np.asarray(leaf).tobytes())
    assert len(set(seen)) == len(seen) == 2 * len(moments)


def _moments_in_torch(variables: Mapping) -> dict[str, Mapping]:
    """The optimizer's state by the name of the parameter."""
    optimizer, model = variables["optimizer"], variables.get("net") or variables["model"]
    return {name: optimizer.state[parameter] for name, parameter in model.named_parameters()}


def _by_path(tree: Any) -> dict[str, Any]:
    """Leaves by their path with dots; the last part of a path in NNX is the variable's `value`."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"): leaf for path, leaf in flat}


def as_torch_has_it(path: str) -> str:
    """A path's last part translated."""
    layer, _, kind = path.rpartition(".")
    return f"{layer}.{'bias' if kind == 'bias' else 'weight'}"
