"""A PyTorch run, recorded by hooks: two lines in a script."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ..interop.parameters import of_weights
from ..parity.bits import as_bits
from .recorder import Recorder
from .summaries import Copies


class TorchRecorder(Recorder):
    """What `record_torch` gives; `note(loss=..., batch=...)` adds to a step before it is taken, `close` takes the hooks away."""

    def __init__(self, optimizer: Any, folder: str | os.PathLike, *, model: Any = None, scaler: Any = None, **options: Any):
        self._names, self._hooks = _names(optimizer, model), []
        super().__init__(folder, **options)
        self._optimizer, self._scaler = optimizer, scaler
        self._left: Any = None  # copies of the gradients, as the last backward pass left them
        self._told = False
        self._forwards: list[Any] = []
        self._hooks += [optimizer.register_step_pre_hook(self._before), optimizer.register_step_post_hook(self._after)]
        for p in self._names.values():
            if p.requires_grad and p.is_leaf:
                self._hooks.append(p.register_post_accumulate_grad_hook(self._backward))
        if model is not None:
            self.extra["modules"] = {str(each.name): each.module for each in of_weights(model)}  # how a square kernel lies
            self._hooks.append(model.register_forward_pre_hook(self._forward, with_kwargs=True))

    def close(self) -> None:
        """As `Recorder.close`; the optimizer is as before."""
        while self._hooks:
            self._hooks.pop().remove()
        super().close()

    def _forward(self, model: Any, args: tuple, kwargs: Mapping[str, Any]) -> None:
        import torch

        if model.training and torch.is_grad_enabled():
            tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
            self._forwards += [x.detach().clone() for x in tensors]

    def _backward(self, p: Any) -> None:
        """At a parameter's gradient: once for each backward pass, let its end be told."""
        if not self._told:
            import torch

            self._told = True
            torch.autograd.Variable._execution_engine.queue_callback(self._keep)  # as DDP has it

    def _keep(self) -> None:
        """What backward has left: with several backward passes, their sum so far."""
        self._told = False
        self._left = self._copied("gradients", self._gradients())

    def _gradients(self) -> dict[str, Any]:
        return {name: p.grad for name, p in self._names.items() if p.grad is not None}

    def _before(self, optimizer: Any, args: tuple, kwargs: Mapping[str, Any]) -> None:
        self.start(params=self._names)
        if not (args or kwargs.get("closure")):  # a closure makes the gradients within the step
            self._note_gradients()

    def _after(self, optimizer: Any, args: tuple, kwargs: Mapping[str, Any]) -> None:
        if args or kwargs.get("closure"):
            self._note_gradients()
        if self._forwards and "batch" not in self._noted:
            self.note(batch=self._forwards[0] if len(self._forwards) == 1 else self._forwards)
        if "lr" not in self._numbers:
            rates = [group["lr"] for group in optimizer.param_groups if "lr" in group]
            self.note(lr=rates[0] if len(set(map(float, rates))) == 1 else rates)
        self._forwards = []
        self.step(params=self._names, state=self._state())

    def _note_gradients(self) -> None:
        """Both, where what the optimizer gets is not what was left. A version counter does not tell: GradScaler leaves it as it was."""
        got, left = self._copied("gradients", self._gradients()), self._left
        scale = self._scaler.get_scale() if self._scaler is not None and self._scaler.is_enabled() else 1.0
        if left is not None and scale != 1:
            left = left._replace(copies=[each._replace(flat=(each.flat / scale).astype(each.flat.dtype)) for each in left.copies])
        self._noted["gradients"], self._left, self._told = got, None, False
        if left is not None and left.kind == got.kind and not _same(left.copies, got.copies):
            self._noted |= {"gradients": left, "clipped": got._replace(stage="clipped")}

    def _state(self) -> dict[str, dict[str, Any]]:
        """Tensors of the optimizer's state, by field and parameter."""
        import torch

        found: dict[str, dict[str, Any]] = {}
        for name, p in self._names.items():
            for field, value in self._optimizer.state.get(p, {}).items():
                if isinstance(value, torch.Tensor):
                    found.setdefault(field, {})[name] = value
        return found


def record_torch(optimizer: Any, folder: str | os.PathLike, *, model: Any = None, scaler: Any = None, **options: Any) -> TorchRecorder:
    """Record every step of a torch optimizer from now on.

    Recorded are the gradients as the last backward pass left them, the gradients that the optimizer gets where something changed them in
    between (a clip), the learning rate, state and parameters after the step, and the tensors that the model is called with in training.
    The loss, or another batch, is said before the step: `recorder.note(loss=loss)`. A step that GradScaler skips is none.

    Args:
        optimizer: any torch.optim.Optimizer.
        folder: where the trace goes.
        model: gives parameters their names; without, those of the optimizer's `param_names`, or "0", "1", ... in its order.
        scaler: the run's GradScaler; what backward left is divided by its scale.
        options: of `Recorder`: tensors, every, rank, resume.

    Raises: ValueError as `Recorder`, and for a parameter of the optimizer that the model has not.
    """
    return TorchRecorder(optimizer, folder, model=model, scaler=scaler, **options)


def _same(first: list[Copies], second: list[Copies]) -> bool:
    return all((as_bits(a.flat) == as_bits(b.flat)).all() for a, b in zip(first, second, strict=True))


def _names(optimizer: Any, model: Any) -> dict[str, Any]:
    parameters = list(_of_groups(optimizer))
    if model is None:
        names = [name for group in optimizer.param_groups for name in group.get("param_names", ())]
        names = names if len(names) == len(parameters) else [str(i) for i in range(len(parameters))]
        return dict(zip(names, parameters, strict=True))
    of_model = {id(p): name for name, p in model.named_parameters()}
    for i, p in enumerate(parameters):
        if id(p) not in of_model:
            raise ValueError(f"record_torch: parameter {i} of the optimizer {tuple(p.shape)} is none of the model's.")
    own = {id(p) for p in parameters}
    return {name: p for name, p in model.named_parameters() if id(p) in own}


def _of_groups(optimizer: Any) -> Iterator[Any]:
    for group in optimizer.param_groups:
        yield from group["params"]
