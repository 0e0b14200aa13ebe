"""Loss scale (Micikevicius et al. 2018, as torch.amp.GradScaler), and steps left out.  Mirror: jaxopt_impl/around/loss_scale.py

uₜ = gₜ (1/σₜ),   σₜ₊₁ = βσₜ where an element of gₜ is infinite or NaN, else γσₜ after N steps in a row (unless it overflows), else σₜ
"""

from typing import Any, NamedTuple

import torch
from torch.amp.grad_scaler import OptState

from .. import numerics as nx
from ..shards import local
from . import checks
from .wrapping import Wrapper, are_finite, gradients


class LossScaleState(NamedTuple):
    """The state of `loss_scale`."""

    scale: Any  # [] float32: σ, what the next gradients are multiplied by
    growth_tracker: Any  # [] int32: how many steps in a row were finite since the scale changed
    inner_state: Any = None


class Hyper(NamedTuple):
    growth_factor: nx.Number  # γ
    backoff_factor: nx.Number  # β
    growth_interval: int  # N


def inverse(s):
    return nx.in_float32(nx.reciprocal(nx.scalar(s.scale)))


def unscale(g, inverse_scale):
    return g * inverse_scale


def adjust(finite, s, h):
    shrunk, grown = nx.in_float32(nx.scalar(s.scale) * h.backoff_factor), nx.in_float32(nx.scalar(s.scale) * h.growth_factor)
    successes = s.growth_tracker + 1
    grows = successes == h.growth_interval
    scale = nx.choose(finite, nx.choose(grows & nx.is_finite(grown), grown, s.scale), shrunk)
    growth_tracker = nx.choose(finite, nx.choose(grows, 0, successes), 0)
    return s._replace(scale=scale, growth_tracker=growth_tracker)


def check_hyper(name, init_scale, growth_factor, backoff_factor, growth_interval):
    checks.number(name, above=0, below=2.0**128, init_scale=init_scale)
    checks.number(name, above=1, growth_factor=growth_factor)
    checks.number(name, above=0, below=1, backoff_factor=backoff_factor)
    checks.whole(name, at_most=2**31 - 1, growth_interval=growth_interval)  # the count is an int32


def count(finite, s):
    notfinite_count = nx.choose(finite, 0, s.notfinite_count + 1)
    total_notfinite = nx.choose(finite, s.total_notfinite, s.total_notfinite + 1)
    return s._replace(notfinite_count=notfinite_count, last_finite=finite, total_notfinite=total_notfinite)


def accepted(s, max_consecutive_errors):
    return s.last_finite | (s.notfinite_count > max_consecutive_errors)


class GradScaler(torch.amp.GradScaler):
    """torch.amp.GradScaler with each operation rounded once; the recurrence and its arguments are those of `jaxopt_impl.loss_scale`.

    Args: as torch.amp.GradScaler.
    State: that of torch.amp.GradScaler, in its `state_dict`; either loads the other's.
    Dtypes: float32, float64, bfloat16, float16.
    Raises: ValueError where a range is broken; TypeError where a gradient is not floating point or not dense.
    Exactness: bit-equal to `jaxopt_impl.loss_scale` in all four dtypes. Run on CPU only.
    Differs from: torch.amp.GradScaler (refuses float16 gradients, and an optimizer none of whose parameters has a gradient; leaves the
        unscaling to optimizers with fused=True, which divide).
    Example:
        >>> p = torch.nn.Parameter(torch.tensor([0.0]))
        >>> optimizer, scaler = torch.optim.SGD([p], lr=1.0), GradScaler("cpu", init_scale=8.0)
        >>> scaler.scale(3 * p.sum()).backward(); scaler.step(optimizer); scaler.update()
        >>> p.data
        tensor([-3.])
    """

    name = "loss_scale"

    def __init__(self, device="cuda", init_scale=2.0**16, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, enabled=True):
        check_hyper(self.name, init_scale, growth_factor, backoff_factor, growth_interval)
        super().__init__(device, init_scale, growth_factor, backoff_factor, growth_interval, enabled)

    @torch.no_grad()
    def unscale_(self, optimizer) -> None:
        """Multiply every `p.grad` by 1/σ, and note whether all are finite."""
        if not self._enabled:
            return
        scale, growth_tracker = self._check_scale_growth_tracker("unscale_")
        own = self._per_optimizer_states[id(optimizer)]
        if own["stage"] is not OptState.READY:
            already = "unscale_() has already been called on this optimizer since the last update()."
            raise RuntimeError(already if own["stage"] is OptState.UNSCALED else "unscale_() is being called after step().")
        inverse_scale = nx.scalar(inverse(LossScaleState(scale, growth_tracker)))
        leaves = [g for _, _, g in gradients(self.name, optimizer)]
        found_inf = torch.full_like(scale, not are_finite(leaves))
        for g in leaves:
            local(g).copy_(nx.unwrap(unscale(nx.wrap(g, nx.dtype_name(g.dtype)), inverse_scale)))
        own["found_inf_per_device"], own["stage"] = {scale.device: found_inf}, OptState.UNSCALED

    def step(self, optimizer, *args, **kwargs):
        """Unscale, unless `unscale_` did, and let the optimizer step if all gradients are finite."""
        if self._enabled and self._per_optimizer_states[id(optimizer)]["stage"] is OptState.READY:
            self.unscale_(optimizer)
        return super().step(optimizer, *args, **kwargs)

    @torch.no_grad()
    def update(self, new_scale=None) -> None:
        """The next scale: as the gradients were, or the one that is given."""
        found = [x for own in self._per_optimizer_states.values() for x in own["found_inf_per_device"].values()] if self._enabled else []
        if not found or new_scale is not None:
            return super().update(new_scale)  # which raises where nothing was unscaled
        scale, growth_tracker = self._check_scale_growth_tracker("update")
        h = Hyper(self._growth_factor, self._backoff_factor, self._growth_interval)
        after = adjust(not any(map(bool, found)), LossScaleState(scale, growth_tracker), h)
        super().update(float(after.scale))
        growth_tracker.fill_(after.growth_tracker)
        return None


class ApplyIfFiniteState(NamedTuple):
    """The counts of `ApplyIfFinite`, as optax has them."""

    notfinite_count: int = 0  # how many gradients in a row were not finite
    last_finite: bool = True
    total_notfinite: int = 0


class ApplyIfFinite(Wrapper):
    """An optimizer whose steps are left out where a gradient is not finite; the arguments are those of `jaxopt_impl.apply_if_finite`.

    Args: as `apply_if_finite`, but for the optimizer: a `torch.optim.Optimizer`, of torch_ref or not, or another wrapper of one.
    State: `counts`: `notfinite_count`, `last_finite`, `total_notfinite`.
    Dtypes: float32, float64, bfloat16, float16.
    Raises: ValueError where N < 0; TypeError where a gradient is not floating point or not dense.
    Exactness: bit-equal to `jaxopt_impl.apply_if_finite` in all four dtypes. Run on CPU only.
    Differs from: torch.amp.GradScaler, which never gives up, and scales.
    Example:
        >>> p = torch.nn.Parameter(torch.tensor([0.0]))
        >>> p.grad = torch.tensor([torch.inf])
        >>> ApplyIfFinite(torch.optim.SGD([p], lr=1.0), max_consecutive_errors=3).step()
        False
    """

    name = "apply_if_finite"

    def __init__(self, optimizer, max_consecutive_errors):
        checks.whole(self.name, at_least=0, at_most=2**31 - 1, max_consecutive_errors=max_consecutive_errors)
        super().__init__(optimizer)
        self.max_consecutive_errors = max_consecutive_errors
        self.counts = ApplyIfFiniteState()

    def step(self) -> bool:
        """Let the optimizer step, or not. Whether it did."""
        self.counts = count(are_finite([g for _, _, g in gradients(self.name, self)]), self.counts)
        steps = accepted(self.counts, self.max_consecutive_errors)
        if steps:
            self.optimizer.step()
        return steps

    def state_dict(self) -> dict[str, Any]:
        """The counts, beside the optimizer's own `state_dict`."""
        return {**self.counts._asdict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where another one stood. Raises: ValueError where a key is missing."""
        *counts, optimizer = self.read(state_dict, *ApplyIfFiniteState._fields, "optimizer")
        self.optimizer.load_state_dict(optimizer)
        self.counts = ApplyIfFiniteState(*counts)
