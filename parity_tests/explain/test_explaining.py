"""What is found, what is said where nothing is found, and what is refused."""

import jax
import numpy as np
import optax
import pytest
import torch

import torch_ref
from optparity.explain import examine, explain, explain_course
from optparity.explain.sides import walk
from optparity.versus.factories import Named

from .examples import gradients, parameters

FED = gradients(10)
ADAGRAD = Named("jax", "optax:adagrad", {"learning_rate": 0.1, "eps": 0.0}), Named("torch", "torch.optim:Adagrad", {"lr": 0.1, "eps": 0.0})


def _torch(name, **arguments):
    return Named("torch", name, {"lr": 0.1, **arguments})


def _jax(name, **arguments):
    return Named("jax", name, {"learning_rate": 0.1, **arguments})


STOCK = {
    "a value": (
        *ADAGRAD,
        "optax.adagrad begins its accumulator at 0.1, torch.optim.Adagrad at 0: say initial_accumulator_value=0.0 to optax.adagrad.",
    ),
    "a flag": (
        _jax("optax:rmsprop", decay=0.99),
        _torch("torch.optim:RMSprop"),
        "optax.rmsprop has eps inside the root, torch.optim.RMSprop outside the root: say eps_in_sqrt=False to optax.rmsprop.",
    ),
    "what was chosen stays": (
        _jax("optax:adam"),
        _torch("torch.optim:Adam", betas=(0.9, 0.99)),
        "optax.adam has b2 0.999, torch.optim.Adam 0.99: say b2=0.99 to optax.adam.",
    ),
    "no argument": (
        _jax("optax:amsgrad"),
        _torch("torch.optim:Adam", amsgrad=True),
        "optax.amsgrad takes AMSGrad's maximum after the bias correction, torch.optim.Adam before the bias correction: "
        "no argument of either says so.",
    ),
    "two at once": (
        _jax("optax:adamw"),
        _torch("torch.optim:Adam", eps=1e-3, weight_decay=1e-4),
        "optax.adamw has eps 1e-08, torch.optim.Adam 0.001: say eps=0.001 to optax.adamw; "
        "optax.adamw decouples the weight decay, torch.optim.Adam adds the weight decay to the gradient (coupled): "
        "say decoupled_weight_decay=True to torch.optim.Adam.",
    ),
    "another rule": (
        _jax("optax:sgd"),
        _torch("torch.optim:Adam"),
        "optax.sgd is sgd, torch.optim.Adam is adam: no setting makes them one.",
    ),
}


@pytest.mark.parametrize(("first", "second", "sentence"), STOCK.values(), ids=STOCK)
def test_stock_optimizers_are_explained(first, second, sentence):
    assert str(explain(first, second, parameters(), FED)) == sentence


def test_with_the_value_that_it_says_they_agree():
    first, second = ADAGRAD
    told = Named("jax", first.name, {**first.arguments, "initial_accumulator_value": 0.0})
    found = examine(told, second, parameters(), FED)
    assert found.agree
    assert str(found) == "optax.adagrad and torch.optim.Adagrad are the same formula: what differs is rounding."


def test_what_has_no_effect_is_not_named():
    """Both eps are far below every root."""
    found = explain(_jax("optax:adam", eps=1e-30), _torch("torch.optim:Adam", eps=1e-35, betas=(0.9, 0.99)), parameters(), FED)
    assert found is not None
    assert found.settings == {"b2"}


def test_what_no_convention_explains_is_said_so():
    found = examine(_jax("optax:adam"), _torch("torch.optim:Adamax"), parameters(), FED, depth=1)
    assert (found.agree, found.explanation) == (False, None)
    assert str(found).startswith("No known convention makes torch.optim.Adamax what it is: ")
    assert str(found).endswith(" members of the family were tried, up to 1 conventions changed.")


def test_a_transform_and_a_callable_are_told_what_they_do_not_say():
    found = explain(
        optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, momentum=0.9)),
        lambda params: torch_ref.SGD(params, lr=0.1, momentum=0.9),
        parameters(),
        FED,
        hyperparameters={"max_norm": 0.5},
    )
    assert found is not None
    assert found.settings == {"clip"}
    assert str(found).startswith("the transform clips the whole gradient by its norm, nothing added, torch_ref.SGD does not clip: ")


def test_two_mistakes_of_one_side_are_found():
    class Twice(torch_ref.SGD):
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                p.grad = -p.grad.bfloat16().to(p.dtype)
            return super().step(closure)

    found = explain(_torch("torch_ref:SGD", momentum=0.9), lambda params: Twice(params, lr=0.1, momentum=0.9), parameters(), FED)
    assert found is not None
    assert found.settings == {"maximize", "gradient_dtype"}


@pytest.mark.parametrize(
    ("fed", "said"),
    [
        ([FED[0], {**FED[1], "w": None}], "Nothing was tried: in step 2 the gradients have not the leaves of the parameters."),
        ([], "Nothing was tried: there is no gradient."),
    ],
)
def test_where_nothing_can_be_tried_it_is_said(fed, said):
    found = examine(*ADAGRAD, parameters(), fed)
    assert (found.agree, found.explanation, str(found)) == (False, None, said)


class TestRecorded:
    """Runs in float32, as they are recorded."""

    @staticmethod
    def course(side, fed=FED):
        start = jax.tree.map(np.float32, parameters())
        points = [jax.tree.unflatten(jax.tree.structure(start), leaves) for leaves in walk(side, start, fed, "float32")]
        return [start, *points]

    def test_the_convention_is_named(self):
        first, second = self.course(_torch("torch_ref:AdaGrad")), self.course(_torch("torch_ref:AdaGrad", eps_in_sqrt=False))
        found = explain_course(FED, first, second, {"rule": "adagrad", "lr": 0.1, "eps": 1e-5, "eps_in_sqrt": True}, names=("A", "B"))
        assert str(found) == "A has eps inside the root, B outside the root: in B, eps must be added under the root."

    def test_rounding_is_not_explained(self):
        first, second = self.course(_torch("torch.optim:AdamW")), self.course(_jax("optax:adamw", weight_decay=0.01))
        assert any((a["w"] != b["w"]).any() for a, b in zip(first, second, strict=True))
        found = explain_course(FED, first, second, {"rule": "adam", "decay": "decoupled", "lr": 0.1, "weight_decay": 0.01})
        assert (found.agree, found.explanation) == (True, None)

    def test_another_start_is_said(self):
        course = self.course(_torch("torch_ref:SGD"))
        other = [jax.tree.map(lambda x: x + 1, point) for point in course]
        assert str(explain_course(FED, course, other, {"lr": 0.1})) == "the first and the second start from different parameters."

    def test_a_point_too_few_is_refused(self):
        course = self.course(_torch("torch_ref:SGD"))
        with pytest.raises(ValueError, match=r"explain: 10 gradients need 11 points, the second has 10\."):
            explain_course(FED, course, course[1:], {"lr": 0.1})


KNOWN = {
    "optax.sgd": _jax("optax:sgd", momentum=0.9, nesterov=True),
    "optax.adagrad": _jax("optax:adagrad"),
    "optax.rmsprop": _jax("optax:rmsprop", centered=True, momentum=0.9, nesterov=True, bias_correction=True, initial_scale=0.5),
    "optax.adam": _jax("optax:adam", eps_root=1e-4, b1=0.8),
    "optax.adamw": _jax("optax:adamw", weight_decay=0.1),
    "optax.nadam": _jax("optax:nadam"),
    "optax.nadamw": _jax("optax:nadamw", weight_decay=0.1),
    "optax.amsgrad": _jax("optax:amsgrad", b2=0.9),
    "optax.lion": _jax("optax:lion", weight_decay=0.1),
    "torch.SGD": _torch("torch.optim:SGD", momentum=0.9, dampening=0.3, weight_decay=0.1, maximize=True),
    "torch.Adagrad": _torch("torch.optim:Adagrad", lr_decay=0.1, initial_accumulator_value=0.3, weight_decay=0.1),
    "torch.RMSprop": _torch("torch.optim:RMSprop", centered=True, momentum=0.9, weight_decay=0.1),
    "torch.Adam": _torch("torch.optim:Adam", amsgrad=True, weight_decay=0.1, betas=(0.8, 0.9)),
    "torch.AdamW": _torch("torch.optim:AdamW", weight_decay=0.1, maximize=True),
    "torch.NAdam": _torch("torch.optim:NAdam", weight_decay=0.1, decoupled_weight_decay=True, momentum_decay=0.01),
    "torch_ref.AdaGrad": _torch("torch_ref:AdaGrad", lr_decay=0.1),
    "torch_ref.Momentum": _torch("torch_ref:Momentum", momentum=0.8, weight_decay=0.1),
    "torch_ref.Lion": _torch("torch_ref:Lion", weight_decay=0.1),
}


@pytest.mark.parametrize("side", KNOWN.values(), ids=KNOWN)
def test_each_known_name_is_the_member_that_it_says(side):
    """Found without any change, against a side that is another rule: what a name stands for is in a table, which could be wrong."""
    other = _torch("torch_ref:SGD") if "SGD" not in side.name and "sgd" not in side.name else _torch("torch.optim:Adam")
    found = examine(side, other, parameters(), FED, depth=0)
    if "Momentum" in side.name:  # the same rule as SGD's
        assert found.explanation is not None
        assert found.explanation.settings == {"momentum", "weight_decay"}
    else:
        assert str(found).endswith("no setting makes them one."), str(found)


def test_torch_is_left_as_it_was():
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    explain(*ADAGRAD, parameters(), FED)
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, grad)
