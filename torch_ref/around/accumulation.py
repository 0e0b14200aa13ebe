"""Several microbatches for one step: their sum (as PyTorch) or running mean (optax.MultiSteps).  Mirror: jaxopt_impl/around/accumulation.py

torch: Gₙ₊₁ = Gₙ + gₙ,                    G₀ = −0;   a step at n = N with G_N / N
optax: Gₙ₊₁ = Gₙ + (gₙ − Gₙ) / (n + 1),   G₀ = 0;    a step at n = N with G_N
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import checks as leaf_checks
from .. import numerics as nx
from ..shards import check_placed, local
from . import checks
from .wrapping import Wrapper, are_finite, gradients, parameters

STARTS = {"torch": -0.0, "optax": 0.0}  # from −0, so that the first gradient is the sum itself: −0 + −0 is −0


class Hyper(NamedTuple):
    every: nx.Number  # N
    form: str
    n: nx.Number = 0  # how many are gathered, set outside of the rule


def gather(g, gathered, h):
    if h.form == "optax":
        return gathered + (g - gathered) / (h.n + 1)
    return gathered + g


def mean(gathered, h):
    return gathered if h.form == "optax" else gathered / h.every


class Accumulator(Wrapper):
    """One step of an optimizer for several microbatches; the recurrence and its arguments are those of `jaxopt_impl.accumulate`.

    Call `step()` after each microbatch's `backward()`, and `zero_grad()` after that. At the last one every `p.grad` becomes the mean, and
    the optimizer steps; `step()` says whether it did, which is when a scheduler or an average of the parameters has its turn. What is to
    happen to the mean before, a clip say, is a hook: `optimizer.register_step_pre_hook`. With a loss scale, `scaler.step(accumulator)`
    after each microbatch is `loss_scale(accumulate(...))`.

    Args: as `accumulate`, but for the optimizer: a `torch.optim.Optimizer`, of torch_ref or not, or another wrapper of one.
    State: `microbatch` and `skipped`, whole numbers, and `gathered` [*p] by parameter, in its dtype or the accumulator's.
    Dtypes: float32, float64, bfloat16, float16.
    Raises: ValueError where every < 1, or the form is not known; TypeError where a gradient is not floating point or not dense.
    Exactness: bit-equal to `jaxopt_impl.accumulate` in all four dtypes. Run on CPU only.
    Differs from: `backward()` again and again with each loss divided by N (other bits, unless N is a power of two).
    Example:
        >>> p = torch.nn.Parameter(torch.tensor([0.0]))
        >>> accumulator = Accumulator(torch.optim.SGD([p], lr=1.0), every=2)
        >>> for loss in (p, 2 * p):
        ...     loss.sum().backward(); print(accumulator.step()); accumulator.zero_grad()
        False
        True
        >>> p.data
        tensor([-1.5000])
    """

    name = "accumulate"

    def __init__(self, optimizer, every, form="torch", *, skip_nonfinite=False, accumulator_dtype=None):
        checks.whole(self.name, every=every)
        checks.one_of(self.name, tuple(STARTS), form=form)
        self.accumulator_dtype = leaf_checks.accumulator(self.name, accumulator_dtype)
        super().__init__(optimizer)
        self.every, self.form, self.skip_nonfinite = every, form, skip_nonfinite
        self.microbatch = 0
        self.skipped = 0
        self.gathered: dict[Tensor, Tensor] = {}

    def step(self) -> bool:
        """Gather every `p.grad`; at the last microbatch let the optimizer step. Whether it did."""
        leaves = gradients(self.name, self)
        if self.skip_nonfinite and not are_finite([g for _, _, g in leaves]):
            self.skipped += 1
            return False
        h = Hyper(self.every, self.form, self.microbatch)
        for path, p, g in leaves:
            self._gather(self._kept(path, p, g), g, h)
        self.microbatch = (self.microbatch + 1) % self.every
        if self.microbatch:
            return False
        for _, p, g in leaves:
            self._hand_on(self.gathered[p], g, h)
        self.optimizer.step()
        return True

    @torch.no_grad()
    def _gather(self, kept: Tensor, g: Tensor, h: Hyper) -> None:
        dtype = nx.dtype_name(kept.dtype)
        local(kept).copy_(nx.unwrap(gather(nx.wrap(g, dtype), nx.wrap(kept, dtype), h)))

    @torch.no_grad()
    def _hand_on(self, kept: Tensor, g: Tensor, h: Hyper) -> None:
        """Put the mean in the place of the last gradient, and start again."""
        local(g).copy_(nx.finish(mean(nx.wrap(kept, nx.dtype_name(kept.dtype)), h), nx.dtype_name(g.dtype)))
        kept.fill_(STARTS[self.form])

    def state_dict(self) -> dict[str, Any]:
        """What is gathered, by the parameters' places, beside the optimizer's own `state_dict`."""
        gathered = {i: self.gathered[p] for i, p in enumerate(parameters(self)) if p in self.gathered}
        own = {"form": self.form, "microbatch": self.microbatch, "skipped": self.skipped, "gathered": gathered}
        return {**own, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where another one stood, in the midst of a step or not.

        Raises: ValueError for one of another form, or that has as many microbatches as make a step here, or lacks a key.
        """
        keys = ("form", "microbatch", "skipped", "gathered", "optimizer")
        form, microbatch, skipped, gathered, optimizer = self.read(state_dict, *keys)
        if form != self.form or microbatch >= self.every:
            raise ValueError(
                f"{self.name}: {microbatch} microbatches of form {form!r} do not go on with every={self.every}, form={self.form!r}."
            )
        places = dict(enumerate(parameters(self)))
        for i, kept in gathered.items():
            leaf_checks.present(self.name, f"params[{i}]", "place here", i in places)
            shape, dtype = places[i].shape, nx.state_dtype(nx.dtype_name(places[i].dtype), self.accumulator_dtype)
            leaf_checks.alike(self.name, f"params[{i}]", "gathered gradient", kept.shape, nx.dtype_name(kept.dtype), shape, dtype)
        self.optimizer.load_state_dict(optimizer)
        self.microbatch, self.skipped = microbatch, skipped
        self.gathered = {places[i]: kept.to(places[i].device, copy=True) for i, kept in gathered.items()}

    def _kept(self, path: str, p: Tensor, g: Tensor) -> Tensor:
        """What a parameter has gathered; raises where the gradient does not fit."""
        if p not in self.gathered:
            dtype = getattr(torch, nx.state_dtype(nx.dtype_name(p.dtype), self.accumulator_dtype))
            self.gathered[p] = torch.full_like(p, STARTS[self.form], dtype=dtype, requires_grad=False, memory_format=torch.preserve_format)
        kept, dtype = self.gathered[p], nx.state_dtype(nx.dtype_name(g.dtype), self.accumulator_dtype)
        leaf_checks.alike(self.name, path, "gathered gradient", kept.shape, nx.dtype_name(kept.dtype), g.shape, dtype)
        check_placed(self.name, path, "gathered gradient", kept, g)
        return kept
