"""A training loop's body over PyTorch's own parts, for what `recipe` differs from."""

from typing import Any

import torch
from torch.optim import lr_scheduler

from jaxopt_impl import is_matrix

from .piece import named


class StockLoop:
    """clip_grad_norm_, AdamW with two groups, LinearLR and then CosineAnnealingLR, gradients added up in `grad`."""

    def __init__(
        self,
        params: list,
        *,
        learning_rate: float,
        decay_steps: int,
        warmup_steps: int = 0,
        end_value: float = 0.0,
        every: int = 1,
        ema_decay: float,
        max_norm: float = 1.0,
        b1: float = 0.9,
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ):
        del ema_decay  # an average moves no parameter
        of_label = {label: [p for name, p in named(params).items() if is_matrix(name) == label] for label in (True, False)}
        groups = [{"params": own, "weight_decay": weight_decay * label} for label, own in of_label.items() if own]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(b1, 0.95), eps=eps)
        parts: list[Any] = [lr_scheduler.CosineAnnealingLR(self.optimizer, decay_steps, end_value)]
        if warmup_steps:
            parts = [lr_scheduler.LambdaLR(self.optimizer, lambda t: t / warmup_steps), *parts]
        self.scheduler = lr_scheduler.SequentialLR(self.optimizer, parts, [warmup_steps] if warmup_steps else [])
        self.params, self.every, self.max_norm = params, every, max_norm
        self.last = warmup_steps + decay_steps  # after it CosineAnnealingLR would rise again
        self.sums: list = [None] * len(params)
        self.microbatch = 0

    @property
    def state(self) -> dict:
        return self.optimizer.state

    def step(self) -> None:
        for i, p in enumerate(self.params):
            if p.grad is not None:
                own = p.grad / self.every
                self.sums[i] = own if self.sums[i] is None else self.sums[i] + own
        self.microbatch += 1
        if self.microbatch == self.every:
            for i, p in enumerate(self.params):
                p.grad, self.sums[i] = self.sums[i], None
            torch.nn.utils.clip_grad_norm_(self.params, self.max_norm)
            self.optimizer.step()
            if self.scheduler.last_epoch < self.last:
                self.scheduler.step()
            self.microbatch = 0
