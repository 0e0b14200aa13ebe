"""The shell that makes a torch.optim.Optimizer of a kernel: groups, state, closures, checkpoints. Knows no rule by name.

A kernel is `step(g, p, s, h) -> (u, s)` on one parameter: gradient, parameter, `State` and `Hyper`; the shell adds u to the parameter.
A subclass names its kernel `rule`, and says by `initial_values` what its state starts at.
"""

import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from . import checks, one_pass
from . import numerics as nx
from .shards import check_placed, local, spread_as

# What the absence of a flag means in a group from an older checkpoint, whatever this optimizer was made with.
_ABSENT = {
    **dict.fromkeys(("maximize", "nesterov", "amsgrad", "centered", "capturable", "differentiable"), False),
    **dict.fromkeys(("foreach", "fused")),
}


def _as_it_is(h):
    return h


class RoundedOnce(torch.optim.Optimizer, ABC):
    """A `torch.optim.Optimizer` whose every operation rounds once.

    Subclasses set the class attributes below. The `state_dict` has the keys of the torch.optim counterpart, so that either loads the
    other's. `foreach=False` steps by the rule, operation by operation; otherwise a group is one compiled call, where there is a library for
    it. The bits are the same. `fused` is accepted and has no effect.
    """

    name: ClassVar[str]  # the name that error messages begin with
    rule: ClassVar[Callable]  # the kernel
    Hyper: ClassVar[Any]  # fields that a group has are read from it; `t` and `first` are set here
    State: ClassVar[Any]  # fields are the keys of a parameter's state
    prepare: ClassVar[Callable] = staticmethod(_as_it_is)  # what a step makes of the hyper-parameters, in float64
    has_step: ClassVar[bool] = True  # whether the state keeps `step`; torch.optim.SGD's does not
    extra_keys: ClassVar[dict[str, Any]] = {}  # keys that torch.optim's group lacks, with what their absence means

    own_dtypes: dict[str, str | None]  # of fields of the state that are kept in it, whatever the parameter's is

    def __init__(self, params, accumulator_dtype=None, own_dtypes=None, **defaults):
        self.accumulator_dtype = checks.accumulator(self.name, accumulator_dtype)
        self.own_dtypes = own_dtypes or {}
        self._check(defaults)
        super().__init__(params, defaults)

    @abstractmethod
    def initial_values(self, group: dict) -> dict[str, float | None]:
        """What each field of `State` but `step` starts at, or None where this group keeps no such field."""

    @abstractmethod
    def check(self, group: dict) -> None:
        """Raise where a group's hyper-parameter is out of range."""

    def hyper(self, group: dict) -> dict[str, Any]:
        """The fields of `Hyper` that a group determines; `betas` are b1 and b2."""
        values = {**group, **dict(zip(("b1", "b2"), group.get("betas", ()), strict=False))}
        return {field: values[field] for field in self.Hyper._fields if field in values}

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        try:
            group = self.param_groups[-1]
            self._check(group)
            for path, p in self._named(group):
                checks.floating(self.name, path, nx.dtype_name(p.dtype))
                checks.eps_survives(self.name, path, self._state_dtype(p), group.get("eps"), group.get("eps_in_sqrt"))
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "accumulator_dtype": self.accumulator_dtype, "own_dtypes": self.own_dtypes}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.own_dtypes = getattr(self, "own_dtypes", {})  # a pickle of an earlier version has none
        for group in self.param_groups:
            for key, value in {**self.defaults, **_ABSENT, **self.extra_keys}.items():
                if key in self.defaults:
                    group.setdefault(key, value)

    def load_state_dict(self, state_dict: dict) -> None:
        """As torch.optim's, but that state of another dtype than the parameter's keeps it, where torch.optim casts to the parameter's."""
        loaded = {}
        last_hook = self.register_load_state_dict_pre_hook(lambda _, what_hooks_made: loaded.update(what_hooks_made))
        try:
            super().load_state_dict(state_dict)
        finally:
            last_hook.remove()
        ids = [i for group in loaded["param_groups"] for i in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for i, p in zip(ids, parameters, strict=True):
            for field, value in loaded["state"].get(i, {}).items():
                dtype = self._field_dtype(field, p)
                if dtype != nx.dtype_name(p.dtype) and isinstance(value, Tensor) and field != "step":
                    there = nx.wrap(value.to(p.device, copy=True), nx.dtype_name(value.dtype))
                    self.state[p][field] = spread_as(value, nx.unwrap(there, dtype))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every parameter that has a gradient; `closure`, if given, recomputes the loss first, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict) -> None:
        found = [self._next_step(path, p, p.grad, group) for path, p in self._named(group) if p.grad is not None]
        if not found:
            return
        hyper = self._hyper(group, t=1.0, first=True)
        program = None if group.get("foreach") is False else self._program(hyper, found[0].state)
        if program and one_pass.takes(found):
            one_pass.step(program, hyper, found)
            for leaf in found:
                _counted(leaf)
        else:
            for leaf in found:
                self._step_by_rule(leaf, group)

    def _program(self, hyper: Any, kept: Iterable[str]) -> Any:
        """The compiled one of this rule, if there is one."""
        prepare = type(self).prepare
        return one_pass.program_of(type(self).rule, None if prepare is _as_it_is else prepare, hyper, kept)

    def _next_step(self, path: str, p: Tensor, g: Tensor, group: dict) -> one_pass.Leaf:
        """What lies here of a parameter that is about to step; raises where something does not fit."""
        checks.dense(self.name, path, str(g.layout).removeprefix("torch."))
        checks.floating(self.name, path, nx.dtype_name(g.dtype))
        checks.gradient(self.name, path, nx.dtype_name(g.dtype), nx.dtype_name(p.dtype), self.accumulator_dtype)
        check_placed(self.name, path, "gradient", g, p)
        first = self._start(p, group)
        kept = self._kept(path, p, g, group)
        counter = self.state[p] if self.has_step else None
        t = (1.0 if first else 2.0) if counter is None else float(counter["step"] + 1)
        return one_pass.Leaf(local(p), local(g), kept, counter, t, self._state_dtype(p))

    def _step_by_rule(self, leaf: one_pass.Leaf, group: dict) -> None:
        kept, computed_in = leaf.state, leaf.computed_in
        _counted(leaf)
        t = leaf.t if leaf.counter is None else float(leaf.counter["step"])  # a parameter that stands twice in the group counts twice
        h = type(self).prepare(self._hyper(group, t=t, first=t == 1))
        s = self.State(**(dict.fromkeys(self.initial_values(group)) | {field: nx.wrap(x, computed_in) for field, x in kept.items()}))
        u, s = type(self).rule(nx.wrap(leaf.g, computed_in), nx.wrap(leaf.p, computed_in), s, h)
        for field, tensor in kept.items():
            tensor.copy_(nx.unwrap(getattr(s, field), self.own_dtypes.get(field)))
        leaf.p.add_(nx.finish(u, nx.dtype_name(leaf.p.dtype)))

    def _start(self, p: Tensor, group: dict) -> bool:
        """Give a parameter the state before its first step, if this is the first; whether it is."""
        initial_values = {field: value for field, value in self.initial_values(group).items() if value is not None}
        if any(value is not None for value in self.state.get(p, {}).values()):
            return False
        if self.has_step or initial_values:
            self._make_state(p, initial_values)
        return True

    def _make_state(self, p: Tensor, initial_values: dict[str, float]) -> None:
        if self.has_step:
            self.state[p]["step"] = torch.zeros((), dtype=_step_dtype())
        for field, value in initial_values.items():
            dtype = self._field_dtype(field, p)
            value = nx.rounded_to(nx.static_value(value), dtype)
            self.state[p][field] = torch.full_like(p, value, dtype=getattr(torch, dtype), memory_format=torch.preserve_format)

    def _kept(self, path: str, p: Tensor, g: Tensor, group: dict) -> dict[str, Tensor]:
        """The fields of a parameter's state that this group keeps, what lies here of each; raises where one is missing or does not fit."""
        state = self.state.get(p, {})
        kept = {field: state.get(field) for field, value in self.initial_values(group).items() if value is not None}
        for field, tensor in kept.items():
            checks.present(self.name, path, field, tensor is not None)
            checks.alike(self.name, path, field, tensor.shape, nx.dtype_name(tensor.dtype), g.shape, self._field_dtype(field, p))
            check_placed(self.name, path, field, tensor, p)
        return {field: local(tensor) for field, tensor in kept.items()}

    def _hyper(self, group: dict, **at_t: Any) -> Any:
        """The kernel's `Hyper`, at a step."""
        fields = {**self.hyper(group), **{field: value for field, value in at_t.items() if field in self.Hyper._fields}}
        return self.Hyper(**{field: _number(value) for field, value in fields.items()})

    def _state_dtype(self, p: Tensor) -> str:
        """In which a parameter's step is computed, and its state kept but for fields of an own dtype."""
        return nx.state_dtype(nx.dtype_name(p.dtype), self.accumulator_dtype)

    def _field_dtype(self, field: str, p: Tensor) -> str:
        """In which a field of a parameter's state is kept."""
        return self.own_dtypes.get(field) or self._state_dtype(p)

    def _check(self, group: dict) -> None:
        for argument in ("differentiable", "capturable"):
            if group.get(argument):
                raise ValueError(f"{self.name}: {argument}=True is not supported: each operation here is eager and rounds once.")
        self._one_element(lr=group["lr"])
        self.check(group)

    def _one_element(self, **hyper: Any) -> None:
        for name, value in hyper.items():
            if isinstance(value, Tensor) and value.numel() != 1:
                raise ValueError(f"Tensor {name} must be 1-element ({self.name}: got shape {tuple(value.shape)})")

    def _named(self, group: dict) -> Iterator[tuple[str, Tensor]]:
        """A group's parameters with their names, or their indices in the `state_dict`."""
        index = 0
        for other in self.param_groups:
            if other is group:
                break
            index += len(other["params"])
        for i, p in enumerate(group["params"]):
            yield f"params[{group['param_names'][i]!r}]" if "param_names" in group else f"params[{index + i}]", p


def _counted(leaf: one_pass.Leaf) -> None:
    if leaf.counter is not None:
        leaf.counter["step"] += 1


def _number(value):
    """A hyper-parameter as kernels take it: a number as a float (an int has no −0), a flag as it is."""
    value = value.item() if isinstance(value, Tensor) else value
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else value


def _step_dtype() -> torch.dtype:
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32  # as torch.optim has it
