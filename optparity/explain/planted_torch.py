"""Mistakes that people make in PyTorch, as they make them: each is the right code with one thing otherwise.

The optimizers are those of `torch_ref` with a rule, or what it is prepared with, of their own. Without the mistake they have the bits of
`torch_ref`; a test holds that.
"""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import numpy as np
import torch
from torch import Tensor, nn

import torch_ref
from torch_ref import numerics as nx
from torch_ref.adagrad import State as SumState
from torch_ref.adam import State as AdamState
from torch_ref.lion import State as LionState
from torch_ref.rmsprop import State as RmsState
from torch_ref.sgd import State as BufferState

from .._arrays import to_numpy, to_torch


def _moments(g, s, h):
    return h.b1 * s.exp_avg + (1 - h.b1) * g, h.b2 * s.exp_avg_sq + (1 - h.b2) * (g * g)


class EpsInside(torch_ref.Adam):
    @staticmethod
    def rule(g, p, s, h):
        m, v = _moments(g, s, h)
        return -(h.step_size * m / nx.sqrt(v / (h.bc2_sqrt * h.bc2_sqrt) + h.eps)), AdamState(m, v, None)


class EpsBeforeCorrection(torch_ref.Adam):
    """The shorter form of the article's section 2, as TensorFlow has it."""

    @staticmethod
    def rule(g, p, s, h):
        m, v = _moments(g, s, h)
        return -(h.step_size * h.bc2_sqrt * m / (nx.sqrt(v) + h.eps)), AdamState(m, v, None)


class NoBiasCorrection(torch_ref.Adam):
    @staticmethod
    def prepare(h):
        return h._replace(step_size=h.lr, bc2_sqrt=1.0)


class FirstMomentCorrected(torch_ref.Adam):
    @staticmethod
    def prepare(h):
        return h._replace(step_size=h.lr / (1 - nx.power(h.b1, h.t)), bc2_sqrt=1.0)


class CountsOneAhead(torch_ref.Adam):
    """The counter is raised before the step, and once more in it."""

    @staticmethod
    def prepare(h):
        t = h.t + 1
        return h._replace(step_size=h.lr / (1 - nx.power(h.b1, t)), bc2_sqrt=math.sqrt(1 - nx.power(h.b2, t)))


class CorrectionInFloat32(torch_ref.Adam):
    """The betas and the step are tensors, and tensors are float32."""

    @staticmethod
    def prepare(h):
        b1, b2, t = (torch.tensor(x, dtype=torch.float32) for x in (h.b1, h.b2, h.t))
        return h._replace(step_size=h.lr / (1 - b1**t).item(), bc2_sqrt=math.sqrt((1 - b2**t).item()))


class BetasInFloat32(torch_ref.Adam):
    def hyper(self, group):
        betas = torch.tensor(group["betas"], dtype=torch.float32).tolist()
        return super().hyper({**group, "betas": betas})


class BetasExchanged(torch_ref.Adam):
    def hyper(self, group):
        b2, b1 = group["betas"]
        return super().hyper({**group, "betas": (b1, b2)})


class MaximumAfterCorrection(torch_ref.Adam):
    @staticmethod
    def rule(g, p, s, h):
        m, v = _moments(g, s, h)
        corrected = nx.maximum(s.max_exp_avg_sq, v / (h.bc2_sqrt * h.bc2_sqrt))
        return -(h.step_size * m / (nx.sqrt(corrected) + h.eps)), AdamState(m, v, corrected)


class DecayAfterStep(torch_ref.AdamW):
    @staticmethod
    def rule(g, p, s, h):
        m, v = _moments(g, s, h)
        q = h.step_size * m / (nx.sqrt(v) / h.bc2_sqrt + h.eps)
        return -(q + h.decay * (p - q)), AdamState(m, v, None)


class DecayInGradient(torch_ref.AdamW):
    """AdamW by name, with the decay of Adam."""

    @staticmethod
    def rule(g, p, s, h):
        m, v = _moments(g + h.weight_decay * p, s, h)
        return -(h.step_size * m / (nx.sqrt(v) / h.bc2_sqrt + h.eps)), AdamState(m, v, None)


class DecayWithoutLr(torch_ref.AdamW):
    @staticmethod
    def prepare(h):
        return torch_ref.AdamW.prepare(h)._replace(decay=h.weight_decay)


def matrices_decayed(params: list[Tensor], weight_decay: float, **arguments: Any) -> torch_ref.AdamW:
    """The usual two groups, where the run that is ported had one."""
    matrices, vectors = [p for p in params if p.ndim >= 2], [p for p in params if p.ndim < 2]
    return torch_ref.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], weight_decay=weight_decay, **arguments)


def bfloat16_moment(params: list[Tensor], **arguments: Any) -> torch_ref.Adam:
    return torch_ref.Adam(params, mu_dtype=torch.bfloat16, **arguments)


class FirstStepDamped(torch_ref.SGD):
    @staticmethod
    def prepare(h):
        return h._replace(gradient_scale=1 - h.dampening)


class Averaged(torch_ref.SGD):
    """`buffer.lerp_(grad, 1 - momentum)`, a mean where a sum is meant; it starts as the first gradient."""

    @staticmethod
    def prepare(h):
        return h._replace(gradient_scale=1.0 if h.first else 1 - h.momentum)


class NesterovWithoutFactor(torch_ref.SGD):
    @staticmethod
    def rule(g, p, s, h):
        b = h.momentum * s.momentum_buffer + g
        return -h.lr * (g + b), BufferState(b)


class NesterovForgotten(torch_ref.SGD):
    @staticmethod
    def rule(g, p, s, h):
        b = h.momentum * s.momentum_buffer + g
        return -h.lr * b, BufferState(b)


class SumStartsAtTenth(torch_ref.AdaGrad):
    def initial_values(self, group):
        return {"sum": 0.1}


class EpsOutside(torch_ref.AdaGrad):
    @staticmethod
    def rule(g, p, s, h):
        sum = s.sum + g * g
        return -(h.lr_t * g / (nx.sqrt(sum) + h.eps)), SumState(sum)


class SumUpdatedLast(torch_ref.AdaGrad):
    @staticmethod
    def rule(g, p, s, h):
        return -(h.lr_t * g / nx.sqrt(s.sum + h.eps)), SumState(s.sum + g * g)


class LrDecaysAtOnce(torch_ref.AdaGrad):
    @staticmethod
    def prepare(h):
        return h._replace(lr_t=h.lr / (1 + h.t * h.lr_decay))


class RmsEpsInside(torch_ref.RMSprop):
    @staticmethod
    def rule(g, p, s, h):
        v = h.alpha * s.square_avg + (1 - h.alpha) * (g * g)
        return -(h.lr * g / nx.sqrt(v + h.eps)), RmsState(v, None, None)


class NotCentered(torch_ref.RMSprop):
    @staticmethod
    def rule(g, p, s, h):
        v = h.alpha * s.square_avg + (1 - h.alpha) * (g * g)
        a = h.alpha * s.grad_avg + (1 - h.alpha) * g
        return -(h.lr * g / (nx.sqrt(v) + h.eps)), RmsState(v, None, a)


class MeanStartsAtOne(torch_ref.RMSprop):
    """As TensorFlow's did."""

    def initial_values(self, group):
        return {**super().initial_values(group), "square_avg": 1.0}


class SignOfMomentum(torch_ref.Lion):
    @staticmethod
    def rule(g, p, s, h):
        m = h.b2 * s.exp_avg + (1 - h.b2) * g
        return -h.lr * nx.sign(m), LionState(m)


class Training:
    """A loop of somebody's own: two microbatches, averaged, clipped, momentum SGD on a cosine. The mistakes below change a method each."""

    lr, max_norm, every, total_steps = 0.1, 0.5, 2, 100
    momentum: Any = 0.9
    weight_decay: Any = 0.01
    says: ClassVar[dict[str, Any]] = {
        "rule": "sgd",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.01,
        "max_norm": 0.5,
        "every": 2,
        "total_steps": 100,
        "schedule": "cosine",
    }

    def optimizer(self, parameters: list[nn.Parameter]) -> Any:
        return torch_ref.SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def microbatch(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """What `loss.backward()` does, the loss divided by the number of microbatches."""
        parameter.grad = gradient / self.every if parameter.grad is None else parameter.grad + gradient / self.every

    def microbatches(self, parameters: list[nn.Parameter], gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            self.microbatch(parameter, gradient)

    def clip(self, parameters: list[nn.Parameter]) -> None:
        nn.utils.clip_grad_norm_(parameters, self.max_norm, foreach=False)

    def learning_rate(self, steps_done: int) -> float:
        return self.lr * (1 + math.cos(math.pi * min(steps_done / self.total_steps, 1.0))) / 2

    def shown(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        """What is compared."""
        return list(parameters)

    def before_step(self, parameters: list[nn.Parameter]) -> None:
        pass

    def after_step(self, parameters: list[nn.Parameter]) -> None:
        pass

    def run(self, params, gradient, steps: int) -> Iterator[Any]:
        leaves, tree = jax.tree.flatten(params)
        parameters = [nn.Parameter(to_torch(leaf, copy=True)) for leaf in leaves]
        optimizer = self.optimizer(parameters)
        self.start(parameters)
        for i in range(1, steps + 1):
            here = tree.unflatten([np.array(to_numpy(p)) for p in parameters])
            self.microbatches(parameters, [to_torch(g, copy=True) for g in jax.tree.leaves(gradient(here, i))])
            if i % self.every == 0:
                self.clip(parameters)
                optimizer.param_groups[0]["lr"] = self.learning_rate(i // self.every - 1)
                self.before_step(parameters)
                optimizer.step()
                self.after_step(parameters)
                optimizer.zero_grad()
            yield tree.unflatten([np.array(to_numpy(x)) for x in self.shown(parameters)])

    def start(self, parameters: list[nn.Parameter]) -> None:
        pass


def _scale(parameters: list[nn.Parameter], scale: Tensor) -> None:
    for p in parameters:
        p.grad = torch.as_tensor(p.grad) * scale


class ClipAddsNothing(Training):
    def clip(self, parameters):
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=False)
        _scale(parameters, torch.clamp(self.max_norm / norm, max=1.0))


class ClipNotClamped(Training):
    def clip(self, parameters):
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=False)
        _scale(parameters, self.max_norm / (norm + 1e-6))


class ClipsEachLeaf(Training):
    def clip(self, parameters):
        for p in parameters:
            nn.utils.clip_grad_norm_([p], self.max_norm, foreach=False)


class ClipsByValue(Training):
    def clip(self, parameters):
        nn.utils.clip_grad_value_(parameters, self.max_norm, foreach=False)


class ClipForgotten(Training):
    def clip(self, parameters):
        pass


class ClipsEachMicrobatch(Training):
    """Each microbatch's gradient is clipped before it is added to the others."""

    def microbatches(self, parameters, gradients):
        norm = nn.utils.get_total_norm(gradients, foreach=False)
        super().microbatches(parameters, [g * torch.clamp(self.max_norm / (norm + 1e-6), max=1.0) for g in gradients])

    def clip(self, parameters):
        pass


class MicrobatchesSummed(Training):
    def microbatch(self, parameter, gradient):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


class LastMicrobatchAlone(Training):
    """`zero_grad()` in the wrong loop, and the loss not divided."""

    def microbatch(self, parameter, gradient):
        parameter.grad = gradient


class WrongSign(Training):
    def microbatch(self, parameter, gradient):
        super().microbatch(parameter, -gradient)


class GradientsInBfloat16(Training):
    def microbatch(self, parameter, gradient):
        super().microbatch(parameter, gradient.bfloat16().to(gradient.dtype))


class CosineToTMinusOne(Training):
    def learning_rate(self, steps_done):
        return self.lr * (1 + math.cos(math.pi * min(steps_done / (self.total_steps - 1), 1.0))) / 2


class ScheduleOneStepAhead(Training):
    """`scheduler.step()` before `optimizer.step()`."""

    def learning_rate(self, steps_done):
        return super().learning_rate(steps_done + 1)


class LrInVelocity(Training):
    def optimizer(self, parameters):
        return torch_ref.Momentum(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


class DecayBeforeClip(Training):
    """The penalty is part of the loss, so that the clip sees its gradient."""

    def optimizer(self, parameters):
        return torch_ref.SGD(parameters, lr=self.lr, momentum=self.momentum)

    def clip(self, parameters):
        for p in parameters:
            p.grad = torch.as_tensor(p.grad) + self.weight_decay * p.detach()
        super().clip(parameters)


class Averaging(Training):
    """The same loop, and an average of its parameters, which is what is compared."""

    ema_decay = 0.9
    says: ClassVar[dict[str, Any]] = Training.says | {"ema_decay": 0.9}

    def start(self, parameters):
        self.taken, self.averages = 0, [p.detach().clone() for p in parameters]

    def take(self, parameters):
        self.taken += 1
        decay = self.decay()
        self.averages = [decay * a + (1 - decay) * p.detach() for a, p in zip(self.averages, parameters, strict=True)]

    def decay(self) -> float:
        return self.ema_decay

    def after_step(self, parameters):
        self.take(parameters)

    def shown(self, parameters):
        return self.averages


class AverageStartsAtZero(Averaging):
    def start(self, parameters):
        self.taken, self.averages = 0, [torch.zeros_like(p) for p in parameters]


class AverageDebiased(AverageStartsAtZero):
    """optax.ema's form."""

    def shown(self, parameters):
        return [a / (1 - self.ema_decay**self.taken) if self.taken else a for a in self.averages]


class AverageBeforeStep(Averaging):
    def before_step(self, parameters):
        self.take(parameters)

    def after_step(self, parameters):
        pass


class AverageWarmedUp(Averaging):
    def decay(self):
        return min(self.ema_decay, (1 + self.taken) / (10 + self.taken))
