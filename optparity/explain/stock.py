"""Every optimizer that torch.optim and optax have by one name: the rules of both, and how far they are from each other, measured."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
import optax.contrib
from jax.tree_util import keystr, tree_leaves_with_path

from ..parity.contexts import CONTEXTS
from ..parity.jax_side import JaxSide
from ..parity.streams import gradients, parameters
from ..versus.states import fields_of_tree

STEPS = (1, 100)
SIZES: Mapping[str, tuple[int, ...]] = {"w": (48, 32), "b": (31,)}
MATRIX: Mapping[str, tuple[int, ...]] = {"w": (48, 32)}

# "rounding": in the nearest settings both compute the same numbers, each rounding in its own order.
# "float32": so they do, but for a scalar that one of them keeps in float32.
# "no": no settings of the two are the same rule.
Agrees = Literal["rounding", "float32", "no"]
WITHIN = {"rounding": 1e-11, "float32": 1e-6}  # at most, of what is nearest, relative to the largest movement


def _normal(sizes: Mapping[str, tuple[int, ...]] = SIZES) -> tuple[Any, Callable[[Any], Iterator]]:
    start = parameters(dict(sizes), "float64")
    return start, lambda params: gradients("normal", start)


def _quadratic() -> tuple[Any, Callable[[Any], Iterator]]:
    """A bowl whose gradients are small: their absolute values add up to less than 1."""
    start, curvature = {"w": np.linspace(0.01, 0.03, 7)}, np.linspace(1, 3, 7)

    def walk(params: Callable[[], Sequence[np.ndarray]]) -> Iterator:
        while True:
            yield {"w": curvature * params()[0]}

    return start, walk


@dataclass(frozen=True, kw_only=True)
class Stock:
    """One name, and what both libraries mean by it.

    Attributes:
        name: as optax has it.
        torch_class: the class of torch.optim.
        flags: arguments that make the class this optimizer, where it is one of several.
        in_optax: the function.
        rules: torch's and optax's, as plain formulas, one after the other: g is the gradient, p the parameter, t the step from 1.
        nearest: arguments of torch and of optax with which they are as near as can be, beside the learning rate.
        learning_rate: of both, in the measurements; by default torch's.
        agrees: what is left then.
        why: what differs, and what to set.
        with_defaults: whether the defaults of both can be driven by gradients alone.
        feed: parameters, and the gradients, given a function that tells torch's parameters.
    """

    name: str
    torch_class: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    in_optax: str
    rules: tuple[str, str]
    nearest: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    learning_rate: float | None = None
    agrees: Agrees = "rounding"
    why: str
    with_defaults: bool = True
    feed: Callable[[], tuple[Any, Callable]] = _normal

    @property
    def torch(self) -> Any:
        import torch

        return getattr(torch.optim, self.torch_class)

    @property
    def optax(self) -> Callable[..., Any]:
        return attrgetter(self.in_optax.removeprefix("optax."))(optax)

    @property
    def rate(self) -> float:
        return self.learning_rate or inspect.signature(self.torch).parameters["lr"].default

    def arguments(self, *, nearest: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of torch and of optax: the learning rate is given to both, and the rest is default, or nearest."""
        of_torch, of_optax = self.nearest if nearest else ({}, {})
        return {"lr": self.rate, **self.flags, **of_torch}, {"learning_rate": self.rate, **of_optax}

    def calls(self, *, nearest: bool) -> tuple[str, str]:
        """Both, as code."""
        of_torch, of_optax = ([f"{key}={value!r}" for key, value in arguments.items()] for arguments in self.arguments(nearest=nearest))
        return f"torch.optim.{self.torch_class}({', '.join(['params', *of_torch])})", f"{self.in_optax}({', '.join(of_optax)})"

    def defaults(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of both, by their signatures; what only says how torch computes is left out."""
        how = {"params", "foreach", "fused", "capturable", "differentiable"}
        found = []
        for make in (self.torch, self.optax):
            parameters = inspect.signature(make).parameters.values()
            found.append({p.name: p.default for p in parameters if p.name not in how and p.default is not p.empty})
        return {**found[0], **self.flags}, found[1]


ADAM = "m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; p = p - lr m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps)"

STOCK = {
    stock.name: stock
    for stock in (
        Stock(
            name="adadelta",
            torch_class="Adadelta",
            in_optax="optax.adadelta",
            rules=(
                "s = rho s + (1-rho) g^2; d = sqrt(a + eps) / sqrt(s + eps) g; a = rho a + (1-rho) d^2; p = p - lr d",
                "as torch; with a learning rate of None, optax's default, p = p + d",
            ),
            why=(
                "The same rule and the same defaults, but for the learning rate. optax's default is None, which leaves out the sign too: "
                "the parameters climb. Set learning_rate=1.0 in optax, which is torch's default."
            ),
        ),
        Stock(
            name="adafactor",
            torch_class="Adafactor",
            in_optax="optax.adafactor",
            rules=(
                "beta = 1 - t^-0.8; of a matrix r = beta r + (1-beta) mean_cols(g^2), c likewise of rows, v = r c / mean(r); of a vector "
                "v = beta v + (1-beta) g^2; u = g / sqrt(v); u = u / max(1, rms(u)/d); p = p - max(eps2, rms(p)) min(lr, 1/sqrt(t)) u",
                "as torch, but a matrix is factored only where both its dimensions have at least min_dim_size_to_factor = 128; p = p - lr "
                "max(1e-3, rms(p)) u, without the bound 1/sqrt(t); eps is added to g^2",
            ),
            nearest=({}, {"min_dim_size_to_factor": 1}),
            agrees="float32",
            why=(
                "optax does not factor a matrix with a dimension below 128. Set min_dim_size_to_factor=1 in optax. It computes beta in "
                "float32, which is what is left. From step 1/lr^2 on (10,000 for lr = 0.01) torch lowers the learning rate to 1/sqrt(t), "
                "and optax does not: give optax a schedule. Decay is multiplied by lr in torch, and in optax it is not."
            ),
        ),
        Stock(
            name="adagrad",
            torch_class="Adagrad",
            in_optax="optax.adagrad",
            rules=(
                "s = s + g^2, from 0; p = p - lr/(1 + (t-1) lr_decay) g / (sqrt(s) + eps)",
                "s = s + g^2, from 0.1; p = p - lr g / sqrt(s + eps), 0 where s is 0",
            ),
            nearest=({"eps": 1e-30}, {"initial_accumulator_value": 0.0, "eps": 0.0}),
            why=(
                "optax starts the accumulator at 0.1, and its epsilon is inside the root. Set initial_accumulator_value=0.0 and eps=0.0 in "
                "optax, and an epsilon in torch that is too small to matter. With eps=0 torch would divide 0 by 0 where no gradient was."
            ),
        ),
        Stock(
            name="adam",
            torch_class="Adam",
            in_optax="optax.adam",
            rules=(ADAM, "as torch, and eps_root inside the root"),
            why="The same rule and the same defaults.",
        ),
        Stock(
            name="adamax",
            torch_class="Adamax",
            in_optax="optax.adamax",
            rules=("m = b1 m + (1-b1) g; n = max(b2 n, abs(g) + eps); p = p - lr m/(1-b1^t) / n", "as torch"),
            why="The same rule and the same defaults.",
        ),
        Stock(
            name="adamw",
            torch_class="AdamW",
            in_optax="optax.adamw",
            rules=(f"p = p (1 - lr weight_decay); then Adam: {ADAM}", "as torch: p = p - lr (u + weight_decay p), of the same p"),
            nearest=({"weight_decay": 0.01}, {"weight_decay": 0.01}),
            why="The same rule. The default decay is 0.01 in torch and 0.0001 in optax: set weight_decay in both.",
        ),
        Stock(
            name="amsgrad",
            torch_class="Adam",
            flags={"amsgrad": True},
            in_optax="optax.amsgrad",
            rules=(
                "m and v as Adam; x = max(x, v); p = p - lr m/(1-b1^t) / (sqrt(x/(1-b2^t)) + eps)",
                "m and v as Adam; x = max(x, v/(1-b2^t)); p = p - lr m/(1-b1^t) / (sqrt(x) + eps)",
            ),
            agrees="no",
            why=(
                "torch takes the maximum of v and corrects its bias afterwards. optax corrects first, and the large first values stay in "
                "the maximum. With bias_correction_nu=False optax does not correct at all, which is farther away. No setting of optax is "
                "torch's rule; jaxopt_impl.adam(amsgrad=True) is."
            ),
        ),
        Stock(
            name="lbfgs",
            torch_class="LBFGS",
            in_optax="optax.lbfgs",
            rules=(
                "d = -H g by the two loops over the last pairs (s, y) with y.s > 1e-10, H0 = (y.s)/(y.y); p = p + lr d, at the first step "
                "min(1, 1/sum(abs(g))) lr d; max_iter such steps in a call of step(closure)",
                "the same loops over all of the last pairs; p = p + lr d, at the first step min(1, 1/norm(g)) lr d; then a line search",
            ),
            nearest=({"max_iter": 1, "history_size": 10}, {"linesearch": None}),
            learning_rate=0.02,
            why=(
                "torch takes 20 steps in a call, optax one with a zoom line search, which asks for the loss. Set max_iter=1 and "
                "history_size=10 in torch and linesearch=None in optax. The first step is bounded by the sum of absolute gradients in "
                "torch and by their norm in optax: they agree where that sum is at most 1, as here. torch leaves out pairs with "
                "y.s <= 1e-10, and stops where the gradient is below tolerance_grad."
            ),
            with_defaults=False,
            feed=_quadratic,
        ),
        Stock(
            name="muon",
            torch_class="Muon",
            in_optax="optax.contrib.muon",
            rules=(
                "m = mu m + (1-mu) g; u = mu m + (1-mu) g; u = u / max(norm(u), eps); 5 Newton-Schulz steps in bfloat16; "
                "p = p (1 - lr weight_decay) - lr sqrt(max(1, rows/columns)) u",
                "m likewise; u = mu m/(1-mu^(t+1)) + (1-mu) g/(1-mu^t); u = u / (norm(u) + eps); 5 Newton-Schulz steps in the dtype of p; "
                "p = p - lr (sqrt(max(1, columns/rows)) u + weight_decay p); what is no matrix takes Adam",
            ),
            nearest=(
                {"nesterov": False, "adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.1},
                {"nesterov": False, "consistent_rms": 0.2, "weight_decay": 0.1},
            ),
            agrees="no",
            why=(
                "torch iterates in bfloat16, optax in the dtype of the parameter: no setting changes that. Nesterov's mean has its bias "
                "corrected in optax only: set nesterov=False. The factor for the shape takes columns for rows, since flax stores a layer's "
                "matrix transposed: transpose it, or set adjust_lr_fn='match_rms_adamw' and consistent_rms=0.2. The default decay is 0.1 "
                "in torch and 0 in optax."
            ),
            feed=lambda: _normal(MATRIX),
        ),
        Stock(
            name="nadam",
            torch_class="NAdam",
            in_optax="optax.nadam",
            rules=(
                "m and v as Adam; b(t) = b1 (1 - 0.96^(t momentum_decay) / 2); B = b(1) ... b(t); "
                "p = p - lr (b(t+1) m/(1 - B b(t+1)) + (1-b(t)) g/(1-B)) / (sqrt(v/(1-b2^t)) + eps)",
                "m and v as Adam; p = p - lr (b1 m/(1-b1^(t+1)) + (1-b1) g/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps)",
            ),
            nearest=({"momentum_decay": 1e6}, {}),
            agrees="float32",
            why=(
                "torch warms b1 up from a half of it. Set momentum_decay=1e6 in torch: 0.96 to that power is 0, and b(t) is b1 from the "
                "first step on. torch keeps the product B in float32, which is what is left. No setting of optax is torch's default."
            ),
        ),
        Stock(
            name="nadamw",
            torch_class="NAdam",
            flags={"decoupled_weight_decay": True},
            in_optax="optax.nadamw",
            rules=("p = p (1 - lr weight_decay); then as nadam", "as nadam, with the decay of adamw"),
            nearest=({"momentum_decay": 1e6, "weight_decay": 0.01}, {"weight_decay": 0.01}),
            agrees="float32",
            why="As nadam. The default decay is 0 in torch and 0.0001 in optax: set weight_decay in both.",
        ),
        Stock(
            name="radam",
            torch_class="RAdam",
            in_optax="optax.radam",
            rules=(
                "m and v as Adam; R = 2/(1-b2) - 1; r = R - 2 t b2^t/(1-b2^t); where r > 5, p = p - lr m/(1-b1^t) sqrt(1-b2^t) / (sqrt(v) "
                "+ eps) sqrt((r-4)(r-2) R / ((R-4)(R-2) r)), else p = p - lr m/(1-b1^t)",
                "as torch, but 1 / (sqrt(v/(1-b2^t)) + eps) for sqrt(1-b2^t) / (sqrt(v) + eps), and r >= threshold = 5",
            ),
            nearest=({"eps": 1e-30}, {"eps": 1e-30}),
            why=(
                "torch adds epsilon before the bias of v is corrected, optax after it. Set an epsilon in both that is too small to matter. "
                "With the defaults torch's is larger, by 1/sqrt(1-b2^t)."
            ),
        ),
        Stock(
            name="rmsprop",
            torch_class="RMSprop",
            in_optax="optax.rmsprop",
            rules=(
                "s = alpha s + (1-alpha) g^2; centered: m = alpha m + (1-alpha) g, and s - m^2 for s below; u = g / (sqrt(s) + eps); "
                "b = momentum b + u; p = p - lr b",
                "as torch, but u = g / sqrt(s + eps), with eps_in_sqrt=False as torch; b = momentum b + lr u; p = p - b",
            ),
            nearest=(
                {"momentum": 0.9, "centered": True},
                {"decay": 0.99, "eps_in_sqrt": False, "momentum": 0.9, "centered": True},
            ),
            why=(
                "The default decay is 0.99 in torch and 0.9 in optax, and optax's epsilon is inside the root. Set decay=0.99 and "
                "eps_in_sqrt=False in optax. With momentum, lr is inside the velocity in optax: a schedule gives other steps. The nearest "
                "settings have momentum and centering as well, since they agree there too."
            ),
        ),
        Stock(
            name="rprop",
            torch_class="Rprop",
            in_optax="optax.rprop",
            rules=(
                "s = s * 1.2 where g keeps its sign, s * 0.5 where it changes, within bounds; p = p - s sign(g), 0 where it changes",
                "s likewise; p = p - (s sign(g) of the step before), 0 where the sign changes",
            ),
            agrees="no",
            why="optax applies each step one step late: its first update is 0. No setting changes that.",
        ),
        Stock(
            name="sgd",
            torch_class="SGD",
            in_optax="optax.sgd",
            rules=(
                "b = momentum b + (1-dampening) g, at first g; p = p - lr b, or with nesterov p = p - lr (g + momentum b)",
                "as torch, without dampening",
            ),
            nearest=({"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True}),
            why="The same rule and the same defaults, with momentum and Nesterov's form too. optax has no dampening.",
        ),
    )
}


def shared() -> list[str]:
    """The names that both have, found in both: classes of torch.optim in small letters that are functions of optax or optax.contrib."""
    classes = _classes()
    return sorted(name for name in classes if callable(getattr(optax, name, None) or getattr(optax.contrib, name, None)))


def only_in_torch() -> list[str]:
    """The classes of torch.optim whose name optax does not have."""
    classes = _classes()
    return [classes[name] for name in sorted(classes.keys() - set(shared()))]


def _classes() -> dict[str, str]:
    import torch

    found = (name for name in dir(torch.optim) if inspect.isclass(getattr(torch.optim, name)) and name != "Optimizer")
    return {name.lower(): name for name in found}


class Apart(NamedTuple):
    """How far the two are from each other after the steps of `STEPS`, over the largest movement of a parameter; and their state."""

    defaults: tuple[float, ...] | None
    nearest: tuple[float, ...]
    torch_state: tuple[str, ...]
    optax_state: tuple[str, ...]


def measure(name: str) -> Apart:
    """Both in float64, with the learning rate given and the rest default, and in the nearest settings."""
    stock = STOCK[name]
    nearest, torch_state, optax_state = _walk(stock, nearest=True)
    if not stock.with_defaults:
        defaults = None
    else:
        defaults = _walk(stock, nearest=False)[0] if stock.arguments(nearest=False) != stock.arguments(nearest=True) else nearest
    return Apart(defaults, nearest, torch_state, optax_state)


def _walk(stock: Stock, *, nearest: bool) -> tuple[tuple[float, ...], tuple[str, ...], tuple[str, ...]]:
    from ..parity.torch_side import TorchSide

    of_torch, of_optax = stock.arguments(nearest=nearest)
    start, feed = stock.feed()
    leaves, paths = jax.tree.leaves(start), [keystr(path) for path, _ in tree_leaves_with_path(start)]
    distances = []
    with _as_users_have_it():
        here = JaxSide(stock.optax(**of_optax), start, CONTEXTS["jit"])
        there = TorchSide(lambda params: _stepping_alone(stock.torch(params, **of_torch)), leaves)
        for step, gradient in enumerate(islice(feed(there.params), STEPS[-1]), 1):
            ((params, state),) = here.steps([gradient])[0]
            there.step(jax.tree.leaves(gradient))
            if step in STEPS:
                distances.append(_distance(jax.tree.leaves(params), there.params(), leaves))
        torch_state = dict.fromkeys(key for of_each in there.optimizer.state.values() for key in of_each)
        return tuple(distances), tuple(torch_state), tuple(fields_of_tree(state, paths))


@contextmanager
def _as_users_have_it() -> Iterator[None]:
    """In float64, with JAX's own settings of promotion, which optax relies on."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _stepping_alone(optimizer: Any) -> Any:
    """The optimizer; L-BFGS asks for a closure, whose loss it does not look at without a line search."""
    if type(optimizer).__name__ == "LBFGS":
        step = optimizer.step
        optimizer.step = lambda: step(lambda: 0.0)
    return optimizer


def _distance(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], start: Sequence[np.ndarray]) -> float:
    """The largest difference, over the largest movement of torch's."""
    apart = max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
    return apart / max(float(np.abs(b - c).max()) for b, c in zip(theirs, start, strict=True))


LEFT = {
    "rounding": "the same numbers, up to rounding",
    "float32": "the same numbers, up to a scalar that one of them keeps in float32",
    "no": "no setting makes them agree",
}


def said(distance: float) -> str:
    """A distance, in words where its digits are those of the machine."""
    if distance <= WITHIN["rounding"]:
        return "rounding" if distance else "0"
    return f"{100 * distance:.{0 if distance > 0.1 else 1}f} %" if distance > 1e-3 else f"{distance:.0e}"


def listed(arguments: Mapping[str, Any]) -> list[str]:
    """Arguments as code; what is no number, text or tuple of them is not spelled out."""
    plain = (bool, int, float, str, tuple, type(None))
    return [f"{key}={value!r}" if type(value) in plain else f"{key}=..." for key, value in arguments.items()]


PAGE = """\
# Which optimizers differ

These optimizers exist in torch.optim and in optax by one name. Some are the same rule, some have other defaults, and some are
another rule. For each the page gives both rules, and how far the two end from each other. It also says what to set.

Both took the same normal gradients in float64, with the learning rate that is torch's default. In float64 nearly nothing
is left of rounding, so what is left is the rule. The distance is the largest difference of a parameter, as a share of the largest
movement of one. *rounding* is a distance below {within:.0e}. L-BFGS took the gradients of a quadratic function, since it needs
curvature.

Written by `optparity explain --page docs/which_differs.md`, on:

{machine}

{summary}

torch.optim has {only} besides, and optax has no optimizer of that name.

{sections}
"""

SECTION = """\
## {name}

{why}

The rule of `torch.optim.{torch_class}`:

```text
{torch_rule}
```

The rule of `{in_optax}`:

```text
{optax_rule}
```

{facts}

Nearest to each other ({left}):

```text
{calls}
```"""


def page(found: Mapping[str, Apart], machine: Sequence[tuple[str, str]], table: Callable[..., str]) -> str:
    """The Markdown page."""
    headers = ["optimizer", "defaults, step 1", f"step {STEPS[-1]}", "nearest, step 1", f"step {STEPS[-1]}", "nearest settings give"]
    return PAGE.format(
        within=WITHIN["rounding"],
        machine="\n".join(f"- {what}: {there}" for what, there in machine),
        summary=table(headers, ([f"[`{name}`](#{name})", *row(name, apart)] for name, apart in found.items())),
        only=" and ".join(f"`{name}`" for name in only_in_torch()),
        sections="\n\n".join(_section(name, apart, table) for name, apart in found.items()),
    )


def row(name: str, apart: Apart) -> list[str]:
    """The distances, and what the nearest settings give."""
    defaults = ["", ""] if apart.defaults is None else map(said, apart.defaults)
    return [*defaults, *map(said, apart.nearest), LEFT[STOCK[name].agrees]]


def facts(name: str, apart: Apart) -> list[tuple[str, Sequence[str], Sequence[str]]]:
    """Defaults and state: what, torch's, optax's."""
    of_torch, of_optax = STOCK[name].defaults()
    return [("defaults", listed(of_torch), listed(of_optax)), ("state", apart.torch_state, apart.optax_state)]


def _section(name: str, apart: Apart, table: Callable[..., str]) -> str:
    stock = STOCK[name]
    torch_rule, optax_rule = (rule.replace("; ", "\n") for rule in stock.rules)
    there = ([what, *(", ".join(f"`{each}`" for each in side) for side in both)] for what, *both in facts(name, apart))
    return SECTION.format(
        name=name,
        why=stock.why,
        torch_class=stock.torch_class,
        in_optax=stock.in_optax,
        torch_rule=torch_rule,
        optax_rule=optax_rule,
        facts=table(["", f"`torch.optim.{stock.torch_class}`", f"`{stock.in_optax}`"], there),
        left=LEFT[stock.agrees],
        calls="\n".join(stock.calls(nearest=True)),
    )
