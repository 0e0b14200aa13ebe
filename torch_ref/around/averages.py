"""Averages of the parameters, exponential (EMA) and equal (SWA, Izmailov et al. 2018).  Mirror: jaxopt_impl/around/averages.py

aₙ₊₁ = βₙ aₙ + (1 − βₙ) θ,   a₁ = θ (form "torch"), or a₀ = 0 and aₙ / (1 − βⁿ) is read (form "optax")
βₙ = β, or with warm-up max(min(1 − 1/(1 + n/γ)^κ, β), β_min)
equal: aₙ₊₁ = aₙ + (θ − aₙ) / (n + 1),   a₁ = θ
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import swa_utils

from .. import checks as leaf_checks
from .. import numerics as nx
from ..shards import is_spread, local, spread_as
from . import checks
from .functions import power_of

FORMS = ("torch", "optax")


class AverageState(NamedTuple):
    average: nx.Rounded | None = None  # shaped as p: aₙ
    biased_average: nx.Rounded | None = None  # shaped as p: aₙ where a₀ = 0
    n_averaged: nx.Count = None  # how many were averaged, a scalar that is counted outside of the rule
    n_steps: nx.Count = None  # how many steps there were, where not each is averaged


class Hyper(NamedTuple):
    decay: nx.Number | None  # β; None makes the equal average
    form: str = "torch"
    use_warmup: bool = False
    min_decay: nx.Number = 0.0  # β_min
    warmup_gamma: nx.Number = 1.0  # γ
    warmup_power: nx.Number = 1.0  # κ
    n: nx.Number = 0.0  # n, set outside of the rule
    rest: nx.Number = 0.0  # 1 − βₙ, set by prepare


def prepare(h):
    if h.decay is None:
        return h
    decay = h.decay
    if h.use_warmup:
        decay = nx.minimum(1 - 1 / power_of(1 + h.n / h.warmup_gamma, h.warmup_power), decay)
        decay = nx.maximum(decay, h.min_decay)
    return h._replace(decay=decay, rest=1 - decay)


# The rule on one array: parameter p, state s, hyper-parameters h.
def step(p, s, h):
    if h.decay is None:
        return AverageState(nx.unless_zero(h.n, s.average + (p - s.average) / (h.n + 1), p))
    if h.form == "optax":
        return AverageState(biased_average=h.decay * s.biased_average + h.rest * p)
    return AverageState(nx.unless_zero(h.n, h.decay * s.average + h.rest * p, p))


def debiased(a, h):
    return a / (1 - nx.power(h.decay, h.n))


class AveragedModel(swa_utils.AveragedModel):
    """torch.optim.swa_utils.AveragedModel with each operation rounded once: `jaxopt_impl.params_ema`, or `params_swa` without a decay.

    Which updates are averaged the caller says, by calling `update_parameters` (`start` and `every` are JAX's).

    Args: `model`, `device` and `use_buffers` as swa_utils.AveragedModel; the others as `jaxopt_impl.params_ema`. `use_buffers` averages
        buffers too; whole numbers among them are averaged in the default dtype and cut, as there. Under FSDP2 (`fully_shard`), which
        forbids to copy a module, `module` holds the shards of the averages and does not compute.
    State: `n_averaged` [], and the averages as `module`; with form="optax" `module` holds the biased averages.
    Dtypes: float32, float64, bfloat16, float16; `accumulator_dtype=torch.float32` makes `module` of a half model a float32 one.
    Raises: ValueError where a range is broken, or where a model is not sharded as its average is; TypeError where a parameter is not
        floating point; RuntimeError where it is called under FSDP2.
    Exactness: bit-equal to `jaxopt_impl.params_ema` and `params_swa` in all four dtypes. Run on CPU only.
    Differs from: swa_utils.AveragedModel by default and with `get_ema_multi_avg_fn`, which use lerp: an FMA. With `get_ema_avg_fn` and
        `get_swa_avg_fn` it agrees. Checkpoints are exchanged both ways (form="torch").
    Example:
        >>> model = nn.Linear(1, 1)
        >>> average = AveragedModel(model, decay=0.75)
        >>> for weight in (4.0, 0.0):
        ...     _ = nn.init.constant_(model.weight, weight)
        ...     average.update_parameters(model)
        >>> average.averaged()["weight"]
        tensor([[3.]])
    """

    def __init__(
        self,
        model: nn.Module,
        device: int | torch.device | None = None,
        use_buffers: bool = False,
        *,
        decay: float | None = None,
        form: Literal["torch", "optax"] = "torch",
        min_decay: float = 0.0,
        update_after_step: int = 0,
        use_warmup: bool = False,
        warmup_gamma: float = 1.0,
        warmup_power: float = 2 / 3,
        accumulator_dtype: Any = None,
    ):
        self.name = "params_swa" if decay is None else "params_ema"
        if decay is not None:
            check_ema(self.name, decay, form, min_decay, update_after_step, use_warmup, warmup_gamma, warmup_power)
        accumulator = leaf_checks.accumulator(self.name, accumulator_dtype)
        super().__init__(_copyable(model), device, use_buffers=use_buffers)
        self.hyper = Hyper(decay, form, use_warmup, min_decay, warmup_gamma, warmup_power)
        self.update_after_step, self.field = update_after_step, "biased_average" if form == "optax" else "average"
        for path, p in self.module.named_parameters():
            leaf_checks.floating(self.name, f"params[{path!r}]", nx.dtype_name(p.dtype))
        for a in self._averaged(self.module):
            if a.is_floating_point():
                a.data = a.data.to(getattr(torch, nx.state_dtype(nx.dtype_name(a.dtype), accumulator)))
            if form == "optax":
                a.data.zero_()

    def _averaged(self, model: nn.Module) -> Iterator[Tensor]:
        yield from model.parameters()
        if self.use_buffers:
            yield from model.buffers()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Average the parameters of the model as they are now."""
        h = prepare(self.hyper._replace(n=float(max(int(self.n_averaged) - self.update_after_step, 0))))
        for a, p in zip(self._averaged(self.module), self._averaged(model), strict=True):
            if is_spread(a) and not is_spread(p):
                raise ValueError(f"{self.name}: the averages are sharded, but the model is not now; call its reshard() before.")
            local(a).copy_(self._step(_floating(a), _floating(p.detach().to(a.device)), h))
        if not self.use_buffers:
            for a, b in zip(self.module.buffers(), model.buffers(), strict=True):
                a.copy_(b)
        self.n_averaged += 1

    def _step(self, a: Tensor, p: Tensor, h: Hyper) -> Tensor:
        kept = nx.dtype_name(a.dtype)
        average: Any = nx.wrap(a, kept)
        s = step(nx.wrap(p, kept), AverageState(**{self.field: average}), h)
        return nx.unwrap(getattr(s, self.field))

    @torch.no_grad()
    def averaged(self) -> dict[str, Tensor]:
        """The average of each parameter by its name (and of each buffer with `use_buffers`); with form="optax" divided by 1 − βⁿ."""
        named = [*self.module.named_parameters(), *(self.module.named_buffers() if self.use_buffers else ())]
        if self.hyper.form == "torch":
            return {name: a.detach() for name, a in named}
        h = self.hyper._replace(n=float(self.n_averaged))
        return {name: spread_as(a, nx.unwrap(debiased(nx.wrap(_floating(a), nx.dtype_name(a.dtype)), h))) for name, a in named}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output with the averages as `averaged` gives them."""
        if isinstance(self.module, _Tensors):
            raise RuntimeError(f"{self.name}: the averages of a model under FSDP2 do not compute; load averaged() into a model.")
        if self.hyper.form == "torch":
            return self.module(*args, **kwargs)
        return torch.func.functional_call(self.module, self.averaged(), args, kwargs)


class _Tensors(nn.Module):
    """The parameters and buffers of a module by their names, without what computes with them."""

    def __init__(self, module: nn.Module):
        super().__init__()
        for name, p in module.named_parameters(recurse=False, remove_duplicate=False):
            self.register_parameter(name, cast(nn.Parameter, p))
        for name, b in module.named_buffers(recurse=False, remove_duplicate=False):
            self.register_buffer(name, b, persistent=name not in module._non_persistent_buffers_set)
        for name, child in module._modules.items():
            self.add_module(name, child and _Tensors(child))


def _copyable(model: nn.Module) -> nn.Module:
    """What `deepcopy` can copy: the model, or under FSDP2 its tensors."""
    if not (dist.is_available() and dist.is_initialized()):
        return model
    from torch.distributed.fsdp import FSDPModule

    return _Tensors(model) if any(isinstance(module, FSDPModule) for module in model.modules()) else model


def check_ema(name, decay, form, min_decay, update_after_step, use_warmup, warmup_gamma, warmup_power):
    checks.one_of(name, FORMS, form=form)
    if form == "optax":
        checks.number(name, at_least=0, below=1, decay=decay)
    checks.number(name, at_least=0, at_most=1, decay=decay, min_decay=min_decay)
    checks.whole(name, at_least=0, update_after_step=update_after_step)
    checks.number(name, at_least=1e-100, warmup_gamma=warmup_gamma)
    checks.number(name, at_least=0, warmup_power=warmup_power)
    if form == "optax" and (use_warmup or update_after_step):
        raise ValueError(f"{name}: use_warmup and update_after_step are of form 'torch'; form 'optax' divides by 1 - decay**n.")


def _floating(x: Tensor) -> Tensor:
    """Whole numbers in the default dtype, as torch computes with them and a Python number."""
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())
