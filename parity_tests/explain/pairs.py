"""Pairs of optimizers that are the same formula, with random hyper-parameters, and what to feed them."""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from optparity.parity.streams import STREAMS
from optparity.parity.streams import gradients as stream_of
from optparity.parity.streams import parameters as parameters_of
from optparity.versus.factories import Named

SHAPES = [(), (3,), (2, 3), (5, 1)]
RATES, DECAYS = st.sampled_from([1e-3, 0.01, 0.1, 0.5]), st.sampled_from([0.0, 1e-4, 0.01, 0.1])
BETAS = st.sampled_from([0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
EPSILONS = st.sampled_from([1e-10, 1e-8, 1e-6, 1e-3])


class Pair(NamedTuple):
    """Two sides that agree, parameters, gradients; `name` for the statistics."""

    name: str
    first: Named
    second: Named
    params: dict[str, np.ndarray]
    gradients: list[dict[str, np.ndarray]]


def _in_torch(arguments: dict[str, Any]) -> dict[str, Any]:
    """Under torch's names."""
    said = {"lr" if name == "learning_rate" else name: value for name, value in arguments.items()}
    if "b1" in said:
        said["betas"] = (said.pop("b1"), said.pop("b2"))
    return said


def _ours(name: str, torch_name: str, **hyper: Any):
    return st.fixed_dictionaries({"learning_rate": RATES, "weight_decay": DECAYS, "maximize": st.booleans(), **hyper}).map(
        lambda said: (name, Named("jax", f"jaxopt_impl:{name}", said), Named("torch", f"torch_ref:{torch_name}", _in_torch(said)))
    )


def _stock(name: str, torch_name: str, renamed: dict[str, str], in_torch: dict[str, Any], in_optax: dict[str, Any], **hyper: Any):
    """`renamed` has optax's names of some arguments; the further ones are told to one side alone."""

    def made(said):
        for_optax = {str(renamed.get(key, key)): value for key, value in said.items()} | in_optax
        sides = Named("jax", f"optax:{name}", for_optax), Named("torch", torch_name, _in_torch(said) | in_torch)
        return (f"optax.{name}", *sides)

    return st.fixed_dictionaries({"learning_rate": RATES, **hyper}).map(made)


def _forms(name: str, **hyper: Any):
    """torch.optim as a loop against its fused form."""
    return st.fixed_dictionaries({"lr": RATES, "weight_decay": DECAYS, "maximize": st.booleans(), **hyper}).map(
        lambda said: (
            f"fused {name}",
            Named("torch", f"torch.optim:{name}", said | {"foreach": False}),
            Named("torch", f"torch.optim:{name}", said | {"fused": True}),
        )
    )


ADAM = {"b1": BETAS, "b2": BETAS, "eps": EPSILONS}
MOMENTA = st.sampled_from([0.5, 0.9, 0.99])
SIDES = st.one_of(
    _ours("sgd", "SGD", momentum=BETAS, dampening=st.sampled_from([0.0, 0.1, 0.9])),
    _ours("momentum", "Momentum", momentum=BETAS),
    _ours(
        "adagrad",
        "AdaGrad",
        eps=EPSILONS,
        eps_in_sqrt=st.booleans(),
        lr_decay=DECAYS,
        initial_accumulator_value=st.sampled_from([0.0, 0.1]),
    ),
    _ours("rmsprop", "RMSprop", alpha=BETAS, eps=EPSILONS, momentum=BETAS, centered=st.booleans()),
    _ours("adam", "Adam", **ADAM, amsgrad=st.booleans()),
    _ours("adamw", "AdamW", **ADAM, amsgrad=st.booleans()),
    _ours("lion", "Lion", b1=BETAS, b2=BETAS),
    _stock("sgd", "torch.optim:SGD", {}, {}, {}, momentum=MOMENTA, nesterov=st.booleans()),
    _stock("adagrad", "torch.optim:Adagrad", {}, {"eps": 0.0}, {"eps": 0.0}, initial_accumulator_value=st.sampled_from([0.1, 1.0])),
    _stock(
        "rmsprop", "torch.optim:RMSprop", {"alpha": "decay"}, {}, {"eps_in_sqrt": False}, alpha=BETAS, eps=EPSILONS, centered=st.booleans()
    ),
    _stock("adam", "torch.optim:Adam", {}, {}, {}, **ADAM),
    _stock("adamw", "torch.optim:AdamW", {}, {}, {}, **ADAM, weight_decay=DECAYS),
    _stock("lion", "torch_ref:Lion", {}, {}, {}, b1=BETAS, b2=BETAS, weight_decay=DECAYS),
    _forms("Adam", betas=st.tuples(BETAS, BETAS), eps=EPSILONS, amsgrad=st.booleans()),
    _forms("AdamW", betas=st.tuples(BETAS, BETAS), eps=EPSILONS, amsgrad=st.booleans()),
    _forms("SGD", momentum=MOMENTA, dampening=st.sampled_from([0.0, 0.1])),
)


@st.composite
def pairs(draw, steps: int) -> Pair:
    name, first, second = draw(SIDES)
    shapes = {f"p{i}": shape for i, shape in enumerate(draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3)))}
    seed, stream = draw(st.integers(0, 1000)), draw(st.sampled_from(list(STREAMS)))
    params = parameters_of(shapes, "float32", seed)
    source = stream_of(stream, params, seed)
    return Pair(f"{name}, {stream}", first, second, params, [next(source) for _ in range(steps)])
