"""Real gradients: a PyTorch classifier in training on scikit-learn's handwritten digits (1,797 images of 8 x 8, no download)."""

from functools import cache

import numpy as np
import torch

from .._arrays import to_numpy, to_torch
from ..datasets import digits

HIDDEN, BATCH = 32, 64


@cache
def _data(dtype: str):
    """Images and labels, of training and held out."""
    data = digits()
    kinds = [getattr(torch, dtype), torch.int64]
    return [torch.from_numpy(x).to(kind) for x, kind in zip(data, 2 * kinds, strict=True)]


class Digits:
    """A classifier of one hidden layer, whose gradients are taken at whatever parameters one gives it.

    Args:
        dtype: of parameters, images and gradients.
        seed: of the initial parameters and of the order of the batches.
        ascend: gives the gradient of the negated loss, which an optimizer with `maximize=True` brings down.
    """

    def __init__(self, dtype: str = "float32", seed: int = 0, *, ascend: bool = False):
        self._train, self._train_labels, self._test, self._test_labels = _data(dtype)
        self._sign, self._seed = -1 if ascend else 1, seed
        rng = np.random.default_rng(seed)
        sizes = [self._train.shape[1], HIDDEN, 10]
        self.params = {
            name: (rng.standard_normal((fan_out, fan_in)) / np.sqrt(fan_in)).astype(dtype)
            for name, fan_in, fan_out in zip(("hidden", "output"), sizes, sizes[1:], strict=False)
        }

    def gradient(self, params, step: int):
        """The gradient of the mean cross-entropy on the batch of this step (1, 2, ...)."""
        rows = digits().rows(step, BATCH, self._seed)
        leaves = {name: to_torch(weight, copy=True).requires_grad_() for name, weight in params.items()}
        loss = torch.nn.functional.cross_entropy(_logits(leaves, self._train[rows]), self._train_labels[rows])
        (self._sign * loss).backward()
        return {name: to_numpy(weight.grad) for name, weight in leaves.items()}

    def accuracy(self, params) -> float:
        """The share of held-out digits that these parameters get right."""
        leaves = {name: to_torch(weight, copy=True) for name, weight in params.items()}
        return (_logits(leaves, self._test).argmax(1) == self._test_labels).double().mean().item()


def _logits(params, images):
    return torch.tanh(images @ params["hidden"].T) @ params["output"].T
