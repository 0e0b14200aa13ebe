"""Float32 master weights of half parameters (Micikevicius et al. 2018, section 3.1).  Mirror: jaxopt_impl/around/master_weights.py

wₜ₊₁ = wₜ + uₜ in float32, uₜ what the inner optimizer makes of the gradient in float32;   θₜ₊₁ = wₜ₊₁ rounded to the parameter's dtype
"""

from typing import Any

import torch

from .. import numerics as nx
from .widening import Widened, add


# The rule on one array: parameter p, its master after the step, the parameter's dtype.
def step(p, master, dtype):
    return nx.update_to(p, nx.narrowed(master, dtype))


class MasterWeights(Widened):
    """An optimizer on float32 masters of bfloat16 and float16 parameters; rule and limits are those of `jaxopt_impl.master_weights`.

    Args:
        params: parameters, named parameters or groups, as torch.optim takes them.
        make: of the same with masters in the place of halves makes the inner optimizer: `lambda params: AdamW(params, lr=1e-3)`.
    State: `copies`, half parameter -> its master, a float32 parameter; `optimizer`, the inner one. Schedulers are made over that.
    Dtypes: bfloat16 and float16 have masters; float32 and float64 are stepped as they are. Gradients are in the parameter's dtype, or
        float32 (`p.grad_dtype = torch.float32`).
    Raises: TypeError where a parameter is not floating point, or the gradient of a half neither one nor float32.
    Exactness: bit-equal to `jaxopt_impl.master_weights`. Run on CPU only.
    Differs from: apex's FP16_Optimizer and torch.amp, which keep float32 parameters and cast for the loss.
    Example:
        >>> import torch
        >>> p = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
        >>> optimizer = MasterWeights([p], lambda masters: torch.optim.SGD(masters, lr=2**-10))
        >>> for _ in range(3):  # each is a quarter of a unit in the last place
        ...     p.grad = torch.ones_like(p)
        ...     optimizer.step()
        >>> p.item(), optimizer.copies[p].item()
        (0.99609375, 0.9970703125)
    """

    name, dtypes = "master_weights", nx.HALVES

    def step_copies(self) -> None:
        self.optimizer.step()
        for p, master in self.copies.items():
            if p.grad is not None:
                add(p, step(nx.wrap(p, "float32"), nx.wrap(master.detach(), "float32"), nx.dtype_name(p.dtype)))

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's, and the masters in the order of the parameters, None of those that have none."""
        masters = [self.copies[p].detach() if p in self.copies else None for p in self.parameters]
        return {"optimizer": self.optimizer.state_dict(), "masters": masters}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse; the parameters themselves are the model's to load."""
        own = [self.copies.get(p) for p in self.parameters]
        theirs = [None if master is None else tuple(master.shape) for master in state_dict["masters"]]
        needed = [None if master is None else tuple(master.shape) for master in own]
        if theirs != needed:
            raise ValueError(f"{self.name}: the state_dict has masters of shapes {theirs}; {needed} are needed.")
        self.optimizer.load_state_dict(state_dict["optimizer"])
        for master, loaded in zip(own, state_dict["masters"], strict=True):
            if master is not None:
                master.copy_(loaded)
