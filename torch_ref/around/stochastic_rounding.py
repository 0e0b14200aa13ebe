"""Stochastic rounding of bfloat16 parameters and state (Gupta et al. 2015).  Mirror: jaxopt_impl/around/stochastic_rounding.py

θₜ₊₁ = θₜ + uₜ, computed in float32 and rounded up or down to bfloat16, each with the probability that makes the mean right
The bits are Threefry-2x32 of the key, the step, the parameter's number, the field's and the element's.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .. import numerics as nx
from ..shards import places, spread_as
from . import checks, threefry
from .widening import Widened, add

DTYPES = ("bfloat16",)  # of the parameters that are rounded
_AT_ONCE = 2**14  # elements, so that the words of one round stay in the cache


# The rule on one array: parameter p, the same after the step in float32, 16 random bits for each element.
def step(p, after, bits):
    return nx.update_to(p, nx.narrowed_by(after, bits))


class StochasticRounding(Widened):
    """An optimizer on bfloat16 parameters that steps in float32, and rounds up or down at random: right in the mean, without masters.

    The rule, its bits and its limits are those of `jaxopt_impl.stochastic_rounding`.

    Args:
        params, make: as `MasterWeights`.
        seed: of the random bits, 0 <= seed < 2^64.
        state: keep what the inner optimizer keeps in float32 for each element of a bfloat16 parameter in bfloat16, rounded so as well.
    State: `rounding_step`, `seed` and `optimizer`, the inner one, whose state is in bfloat16 between steps. `copies` are float32 copies of
        the parameters that the inner optimizer steps: working memory, which each step fills anew.
    Dtypes: bfloat16 is rounded; float32 and float64 are stepped as they are. Gradients are in the parameter's dtype, or float32.
    Raises: ValueError or TypeError for a seed out of range; TypeError where a parameter is float16 or not floating point, or the gradient
        of a bfloat16 neither one nor float32.
    Exactness: bit-equal to `jaxopt_impl.stochastic_rounding`, parameters numbered in the order in which they are given. Run on CPU only.
    Differs from: torch.optim, which has none.
    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.full((1000,), 1.5, dtype=torch.bfloat16))
        >>> optimizer = StochasticRounding([p], lambda copies: torch.optim.SGD(copies, lr=2**-10), seed=0)
        >>> p.grad = torch.ones_like(p)
        >>> optimizer.step()  # an eighth of a unit in the last place
        >>> (p == 1.5).sum().item(), (p == 1.5 - 2**-7).sum().item()
        (871, 129)
    """

    name, dtypes = "stochastic_rounding", DTYPES

    def __init__(self, params: Iterable, make: Callable[[list], torch.optim.Optimizer], seed: int, *, state: bool = True):
        checks.whole(self.name, at_least=0, at_most=2**64 - 1, seed=seed)
        self.seed, self.rounds_state, self.rounding_step = seed, state, 0
        self.fields: dict[Tensor, list[str]] = {}  # what is kept in bfloat16 of a parameter's state, in the order of its names
        super().__init__(params, make)
        self._to_nearest()

    def check(self, path, p):
        super().check(path, p)
        checks.no_float16(self.name, path, nx.dtype_name(p.dtype))
        checks.counted(self.name, path, p.numel())

    def step_copies(self) -> None:
        for p, copy in self.copies.items():
            copy.copy_(p)
            for field in self.fields.get(p, ()):
                self.optimizer.state[copy][field] = self.optimizer.state[copy][field].float()
        self.optimizer.step()
        self.rounding_step += 1
        for number, p in enumerate(self.parameters):
            if p in self.copies:
                self._round(p, self.copies[p], self._bits(p, number))

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's with its state in bfloat16, and what the next bits depend on."""
        return {"optimizer": self.optimizer.state_dict(), "rounding_step": self.rounding_step, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse; the parameters themselves are the model's to load."""
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.rounding_step, self.seed = state_dict["rounding_step"], state_dict["seed"]
        self._to_nearest()  # it is in bfloat16 already, unless it comes from a run without

    def _round(self, p: Tensor, copy: Tensor, bits: Callable[[int], Tensor]) -> None:
        """Round a parameter and its state, after the step of its copy."""
        self._keep(p, copy, lambda x, field: nx.narrowed_by(x, bits(field)))
        if p.grad is not None:
            add(p, step(nx.wrap(p, "float32"), nx.wrap(copy.detach(), "float32"), bits(0)))

    def _to_nearest(self) -> None:
        """Round the state that there is without a step."""
        for p, copy in self.copies.items():
            self._keep(p, copy, lambda x, field: x)

    def _keep(self, p: Tensor, copy: Tensor, narrowed: Callable[[nx.Rounded, int], nx.Rounded]) -> None:
        """Put what the inner optimizer keeps in float32 for each element into bfloat16. Its fields are counted from 1, by their names."""
        state = self.optimizer.state.get(copy, {}) if self.rounds_state else {}
        self.fields[p] = sorted(field for field, x in state.items() if field != "step" and _is_kept(x, copy))
        for number, field in enumerate(self.fields[p], 1):
            state[field] = spread_as(state[field], nx.finish(narrowed(nx.wrap(state[field], "float32"), number), "bfloat16"))

    def _bits(self, p: Tensor, number: int) -> Callable[[int], Tensor]:
        """16 random bits for each element of a field, by its number, at this step; four fields share two words."""
        key = (nx.word(self.seed >> 32), nx.word(self.seed))
        key = threefry.of_leaf(key, nx.word(self.rounding_step), nx.word(number))
        numbers = places(p)

        @functools.cache
        def words(block: int) -> list[Tensor]:
            parts = (threefry.threefry2x32(key, (block, part)) for part in numbers.flatten().split(_AT_ONCE))
            return [torch.cat(word).view(numbers.shape) for word in zip(*parts, strict=True)]

        return lambda field: threefry.sixteen(words(field // 4), field)


def _is_kept(x: Any, copy: Tensor) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.float32 and x.shape == copy.shape
