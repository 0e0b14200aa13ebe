"""Keys of a torch group that no optimizer knows are kept as data; one by which another class computes its step is refused."""

import inspect

import jax.numpy as jnp
import pytest
import torch

from optparity import interop
from optparity.interop import torch_classes
from optparity.registry import TORCH_CLASSES

from .states import adam_state_dict, state_dicts_same

PARAMS = {"a": jnp.ones(3), "b": jnp.ones((2, 3))}
EXTRA = {
    "lr_scale": 0.5,
    "lr_mult": 2,
    "group_name": "decay, depth 3",
    "layers": [1, 2, (3, None)],
    "fix_step": False,
    "scale": torch.tensor([0.25, 0.5]),
    "nested": {"a": {0: torch.tensor(1)}},
}


def test_extra_keys_come_back_as_they_were():
    saved = adam_state_dict()
    saved["param_groups"][0] |= EXTRA
    imported = interop.from_torch(saved, PARAMS, optimizer="Adam")
    back = interop.to_torch_state_dict(imported.state, imported.groups)
    state_dicts_same(back, saved)
    assert torch_classes.unknown("Adam", {**imported.groups[0].options, "foreach": None}) == [*EXTRA]


def stock_classes():
    found = [value for value in vars(torch.optim).values() if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)]
    return [kind for kind in found if kind is not torch.optim.Optimizer]


@pytest.mark.parametrize("kind", stock_classes(), ids=lambda kind: kind.__name__)
def test_no_key_of_a_class_of_torch_is_taken_for_data(kind):
    """RAdam's and SparseAdam's keys are all Adam's: nothing shows them. Adamax's too, whose state is another."""
    (group,) = kind([torch.nn.Parameter(torch.ones(2, 2))]).param_groups
    options = {key: value for key, value in group.items() if key != "params"}
    for name in TORCH_CLASSES:
        if torch_classes.unknown(name, options):
            with pytest.raises(ValueError, match=r"group 0 has the key '\w+', which is of the rule of "):
                torch_classes.in_jax(name, options, "group 0")
