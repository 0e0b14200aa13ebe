"""A family of optimizers, and of what stands around a step, in which every known convention is a setting.

Plain NumPy in float64, one function for each rule; slow and readable, and no arithmetic of `jaxopt_impl` or `torch_ref` is shared. A
member is a `Settings`. All leaves stand in one vector: what depends on them (a mask, a norm of each) gets them as `Shapes`.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

FLOATS = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One member: hyper-parameters, and conventions by name. `CONVENTIONS` says what each value of a convention means."""

    rule: str
    lr: float | Callable[[int], Any] = 1e-3  # or a schedule, count -> value
    weight_decay: float = 0.0
    maximize: bool = False
    # the rules
    momentum: float = 0.0
    dampening: float = 0.0
    first_step: str = "undamped"
    velocity: str = "without lr"
    nesterov: str = "no"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0
    eps_place: str = "outside"
    bias_correction: str = "both"
    betas: str = "as said"
    beta_dtype: str = "float64"
    amsgrad: str = "no"
    momentum_decay: float = 4e-3
    alpha: float = 0.99
    centered: bool = False
    initial: float = 0.0
    lr_decay: float = 0.0
    lr_decay_start: str = "the second step"
    sum_sees: str = "this gradient"
    sign_of: str = "the interpolation"
    state_dtype: str = "float64"  # or another; with "first moment" only that, with "after use" the step goes on unrounded
    # the decay
    decay: str = "coupled"
    decay_times: str = "lr"
    decay_on: str = "all"
    # around the step
    gradient_dtype: str = "float64"
    every: int = 1
    accumulation: str = "mean"
    gathered_dtype: str = "float64"
    max_norm: float | None = None
    clip: str = "torch"
    clip_order: str = "after accumulation"
    schedule: str = "constant"
    total_steps: int = 0
    warmup_steps: int = 0
    schedule_length: str = "T"
    schedule_start: str = "at 0"
    lr_dtype: str = "float64"
    ema_decay: float | None = None
    ema_start: str = "parameters"
    ema_sees: str = "after the step"
    ema_warmup: bool = False


class Shapes(NamedTuple):
    """Where each leaf stands in the vector, and which elements belong to matrices (two dimensions or more)."""

    slices: tuple[slice, ...]
    matrices: np.ndarray

    @classmethod
    def of(cls, leaves: Iterable[np.ndarray]) -> "Shapes":
        leaves, slices, end = list(leaves), [], 0
        for leaf in leaves:
            slices.append(slice(end, end + leaf.size))
            end += leaf.size
        return cls(tuple(slices), np.concatenate([np.full(leaf.size, leaf.ndim >= 2) for leaf in leaves]))


def rounded(x: Any, dtype: str) -> Any:
    """x as a float of that dtype would hold it, in float64."""
    return x if dtype == "float64" else np.asarray(x).astype(FLOATS[dtype]).astype(np.float64)


class State(dict[str, Any]):
    """What a rule keeps from step to step, rounded as the settings say."""

    def __init__(self, s: Settings):
        super().__init__()
        self._dtype, *self._how = s.state_dtype.split(", ")

    def keep(self, name: str, value: Any) -> Any:
        """Store a value, and give what the step goes on with."""
        kept = value if "first moment" in self._how and name != "m" else rounded(value, self._dtype)
        self[name] = kept
        return value if "after use" in self._how else kept


def sgd(g, state: State, t: int, lr: float, s: Settings):
    """b = μ b + (1 − τ) g,   θ −= η b"""
    if s.velocity == "with lr":
        g, lr = lr * g, 1.0
    if not s.momentum:
        return lr * g
    damped = g if s.first_step == "undamped" and t == 1 else (1 - s.dampening) * g
    b = state.keep("b", s.momentum * state.get("b", 0.0) + damped)
    forms = {"no": lambda: b, "g + μ b": lambda: g + s.momentum * b, "damped": lambda: (1 - s.dampening) * g + s.momentum * b}
    return lr * (forms[s.nesterov] if s.nesterov != "g + b" else lambda: g + b)()


def adagrad(g, state: State, t: int, lr: float, s: Settings):
    """G = G + g²,   θ −= η g / (√G + ε)"""
    before = state.get("sum", s.initial)
    sum = state.keep("sum", before + g * g)
    lr /= 1 + (t - 1 if s.lr_decay_start == "the second step" else t) * s.lr_decay
    return lr * g / _root(sum if s.sum_sees == "this gradient" else before, s)


def rmsprop(g, state: State, t: int, lr: float, s: Settings):
    """v = α v + (1 − α) g²,   θ −= η g / (√v + ε);  centered: v − a² in v's place, a the mean of g;  μ: b = μ b + that quotient"""
    before = state.get("v", s.initial)
    v = state.keep("v", s.alpha * before + (1 - s.alpha) * g * g)
    used = v if s.sum_sees == "this gradient" else before
    corrected = 1 - s.alpha**t if s.bias_correction == "both" else 1.0
    if s.centered:
        a = state.keep("a", s.alpha * state.get("a", 0.0) + (1 - s.alpha) * g)
        used = used / corrected - (a / corrected) ** 2
    else:
        used = used / corrected
    q = g / _root(used, s)
    if not s.momentum:
        return lr * q
    inside, outside = (lr, 1.0) if s.velocity == "with lr" else (1.0, lr)
    b = state.keep("b", s.momentum * state.get("b", 0.0) + inside * q)
    return outside * (inside * q + s.momentum * b if s.nesterov == "g + μ b" else b)


def _root(x, s: Settings):
    return np.sqrt(x + s.eps) if s.eps_place == "inside" else np.sqrt(x + s.eps_root) + s.eps


def adam(g, state: State, t: int, lr: float, s: Settings):
    """m = β₁ m + (1 − β₁) g,   v = β₂ v + (1 − β₂) g²,   θ −= η m̂ / (√v̂ + ε),  m̂ = m / (1 − β₁ᵗ),  v̂ = v / (1 − β₂ᵗ)"""
    b1, b2 = (float(rounded(b, s.beta_dtype)) for b in ((s.b1, s.b2) if s.betas == "as said" else (s.b2, s.b1)))
    m = state.keep("m", b1 * state.get("m", 0.0) + (1 - b1) * g)
    v = state.keep("v", b2 * state.get("v", s.initial) + (1 - b2) * g * g)
    c2 = _correction(b2, t, s, "second only")
    m = m / _correction(b1, t, s, "first only") if s.nesterov == "no" else _nesterov(g, m, b1, state, t, s)
    if s.amsgrad == "after the correction":
        v = state.keep("max", np.maximum(state.get("max", 0.0), v / c2)) * c2
    elif s.amsgrad == "before the correction":
        v = state.keep("max", np.maximum(state.get("max", 0.0), v))
    if s.eps_place == "before the correction":
        return lr * m * math.sqrt(c2) / (np.sqrt(v) + s.eps)
    return lr * m / _root(v / c2, s)


def _correction(beta: float, t: int, s: Settings, alone: str) -> float:
    if s.bias_correction not in ("both", alone, "one ahead", "in float32"):
        return 1.0
    if s.bias_correction == "in float32":
        return float(np.float32(1) - np.float32(np.float32(beta) ** np.float32(t)))
    return 1 - beta ** (t + (s.bias_correction == "one ahead"))


def _nesterov(g, m, b1: float, state: State, t: int, s: Settings):
    """Dozat's: the gradient and the moment each with its own factor and correction; torch's factor moves, optax's is β₁."""

    def factor(t: int) -> float:
        return b1 if s.nesterov == "g + μ b" else b1 * (1 - 0.5 * 0.96 ** (t * s.momentum_decay))

    product = state.get("product", 1.0) * factor(t)
    if s.nesterov == "a moving factor":  # torch keeps the product in a float32 tensor, whatever the parameter's dtype
        product = float(np.float32(state.get("product", 1.0)) * np.float32(factor(t)))
    state["product"] = product
    return (1 - factor(t)) * g / (1 - product) + factor(t + 1) * m / (1 - product * factor(t + 1))


def lion(g, state: State, t: int, lr: float, s: Settings):
    """θ −= η sign(β₁ m + (1 − β₁) g),   m = β₂ m + (1 − β₂) g"""
    b1, b2 = (s.b1, s.b2) if s.betas == "as said" else (s.b2, s.b1)
    before = state.get("m", np.zeros_like(g))
    m = state.keep("m", b2 * before + (1 - b2) * g)
    return lr * np.sign(b1 * before + (1 - b1) * g if s.sign_of == "the interpolation" else m)


RULES: dict[str, Callable] = {"sgd": sgd, "adagrad": adagrad, "rmsprop": rmsprop, "adam": adam, "lion": lion}


def learning_rate(t: int, s: Settings) -> float:
    """Of step 1, 2, ...: from 0 up over the warm-up, then down to 0 on half a cosine, or in a line."""
    lr = _scheduled(t, s)
    return float(np.float32(lr)) if s.lr_dtype == "in float32" else lr


def _scheduled(t: int, s: Settings) -> float:
    count = t - 1 + {"at 0": 0, "at 1": 1, "held once": -1}[s.schedule_start]
    count = max(count, 0)
    if callable(s.lr):
        return float(s.lr(count))
    if count < s.warmup_steps:
        return s.lr * count / s.warmup_steps
    if s.schedule == "constant":
        return s.lr
    length = s.total_steps - s.warmup_steps - (s.schedule_length == "T - 1")
    done = min((count - s.warmup_steps) / length, 1.0)
    return s.lr * ((1 + math.cos(math.pi * done)) / 2 if s.schedule == "cosine" else 1 - done)


def clipped(g, shapes: Shapes, s: Settings):
    """g, its norm brought to at most `max_norm`."""
    if s.max_norm is None or s.clip == "off":
        return g
    if s.clip == "by value":
        return np.clip(g, -s.max_norm, s.max_norm)
    if s.clip.startswith("by leaf"):
        return np.concatenate([_norm_clipped(g[i], s.max_norm, s.clip.removeprefix("by leaf, ")) for i in shapes.slices])
    return _norm_clipped(g, s.max_norm, s.clip)


def _norm_clipped(g, max_norm: float, form: str):
    norm = np.sqrt(np.sum(g * g))
    scale = max_norm / (norm if form == "optax" else norm + 1e-6)
    return g * (scale if form == "unclamped" else min(scale, 1.0))


def course(s: Settings, params: np.ndarray, gradients: Iterable[np.ndarray], shapes: Shapes) -> Iterator[np.ndarray]:
    """The parameters after each gradient, or with `ema_decay` their average."""
    p, state, gathered, average = params, State(s), [], _Average(s, params)
    t = 0
    for i, g in enumerate(gradients, 1):
        g = rounded(g, s.gradient_dtype)
        gathered.append(clipped(g, shapes, s) if s.clip_order == "each microbatch" else g)
        if i % s.every == 0:
            t += 1
            before, p = p, step(_joined(gathered, s), p, state, t, shapes, s)
            average.take(before if s.ema_sees == "before the step" else p)
            gathered = []
        yield p if s.ema_decay is None else average.value()


def _joined(gathered: list[np.ndarray], s: Settings) -> np.ndarray:
    """The microbatches as one gradient: as a running mean, which is kept in a dtype between them."""
    if s.accumulation == "last":
        return gathered[-1]
    mean = np.zeros_like(gathered[0])
    for n, g in enumerate(gathered, 1):
        kept = rounded(mean, s.gathered_dtype)
        mean = kept + (g - kept) / n
    return mean if s.accumulation == "mean" else mean * len(gathered)


def step(g, p, state: State, t: int, shapes: Shapes, s: Settings):
    """The parameters after a step; the parameter's decay may stand at three places of it."""
    lr = learning_rate(t, s)
    decayed = s.weight_decay * (p if s.decay_on == "all" else p * shapes.matrices)
    if s.decay == "coupled, before the clip":
        g = g + decayed
    if s.clip_order == "after accumulation":
        g = clipped(g, shapes, s)
    if s.maximize:
        g = -g
    if s.decay == "coupled":
        g = g + decayed
    u = RULES[s.rule](g, state, t, lr, s)
    factor = {"lr": lr, "nothing": 1.0, "the first lr": learning_rate(s.warmup_steps + 1, s)}[s.decay_times]
    if s.decay == "decoupled":
        return p - (u + factor * decayed)
    p = p - u
    if s.decay == "decoupled, after the step":
        return p - factor * s.weight_decay * (p if s.decay_on == "all" else p * shapes.matrices)
    return p


class _Average:
    """a = δ a + (1 − δ) θ"""

    def __init__(self, s: Settings, params: np.ndarray):
        self._s, self._taken, self._product = s, 0, 1.0
        self._average = params if s.ema_start in ("parameters", "first step") else np.zeros_like(params)

    def take(self, p: np.ndarray) -> None:
        if self._s.ema_decay is None:
            return
        self._taken += 1
        decay = self._s.ema_decay
        if self._s.ema_warmup:
            decay = min(decay, (1 + self._taken) / (10 + self._taken))
        if self._s.ema_start == "first step" and self._taken == 1:
            self._average = p
            return
        self._product *= decay
        self._average = decay * self._average + (1 - decay) * p

    def value(self) -> np.ndarray:
        return self._average / (1 - self._product) if self._s.ema_start == "zero, debiased" and self._taken else self._average
