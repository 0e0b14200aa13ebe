"""What a step really takes: of a torch `nn.Module` by autograd's hooks, of a JAX function by its residuals and its compiled program.

torch is imported where a module is measured, since whoever has a module has it.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .memory import Bytes, Memory, nbytes, total
from .state import state


def measure_torch(module: Any, loss: Callable[[], Any], optimizer: str = "adam", **options: Any) -> Memory:
    """The memory of an `nn.Module`: parameters, gradients and state exactly, activations by running `loss()` once.

    Activations are the storages that autograd keeps, each once, parameters excluded; on `device="meta"` nothing is allocated. What the
    backward pass has in flight is not among them: see `torch_peak`.
    """
    import torch

    p = [jax.ShapeDtypeStruct(p.shape, str(p.dtype).removeprefix("torch.")) for p in module.parameters()]
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor):
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        graph = loss()
    found = [t for storage, t in kept.items() if storage not in own]
    activations = total((str(t.dtype).removeprefix("torch."), t.untyped_storage().nbytes()) for t in found)
    del graph
    gradients = [leaf for leaf, q in zip(p, module.parameters(), strict=True) if q.requires_grad]
    return Memory("measured (torch)", nbytes(p), nbytes(gradients), state(optimizer, gradients, "torch", **options).bytes, activations, {})


def torch_flops(loss: Callable[[], Any]) -> int:
    """FLOPs of `loss()` and of its backward pass, by torch's own counter: exact for matrices, 0 for all else.

    On CPU it counts 0 for `scaled_dot_product_attention` (pytorch#195460): write attention out. Gradients accumulate.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return counter.get_total_flops()


def torch_peak(loss: Callable[[], Any]) -> int:
    """The most bytes of tensors that `loss()` and its backward pass hold at a time, beyond those that were there before.

    By the storages that operations return, until they are freed; so on `device="meta"` nothing is allocated. What a kernel allocates for
    itself is not seen, nor what the allocator rounds up. Gradients accumulate.
    """
    import weakref

    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Peak(TorchDispatchMode):
        now = most = 0

        def __init__(self):
            super().__init__()
            self.known = weakref.WeakSet()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            del types
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, Tensor):
                    self.known.add(leaf.untyped_storage())  # made before, or by an operation and counted
            out = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor) and leaf.untyped_storage() not in self.known:
                    self._count(leaf.untyped_storage())
            return out

        def _count(self, storage):
            self.known.add(storage)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._freed, storage.nbytes())

        def _freed(self, count):
            self.now -= count

    with Peak() as peak:
        loss().backward()
    return peak.most


def measure_jax(loss: Callable[..., Any], params: Any, *data: Any, optimizer: Any = "adam", **options: Any) -> Memory:
    """The memory of `jax.grad(loss)(params, *data)`: from shapes alone, nothing is allocated.

    Activations are the residuals that `jax.vjp` keeps for the backward pass, parameters excluded, data included.
    Temporaries are what XLA's `temp_size` has beyond the residuals; it may recompute, fuse, or use output buffers, and need less.
    """
    leaves = jax.tree.leaves(params)
    p = nbytes(leaves)
    activations = _residuals(loss, params, *data)
    temporaries = jax_memory(jax.grad(loss), params, *data)["temp"] - sum(activations.values())
    xla = total([("uint8", max(temporaries, 0))])
    return Memory("measured (jax)", p, p, state(optimizer, params, **options).bytes, activations, xla)


def jax_memory(step: Callable[..., Any], *args: Any, donate: tuple[int, ...] = ()) -> dict[str, int]:
    """The compiled program's bytes: argument, output, alias (outputs in donated arguments), temp, peak (argument + output + temp − alias).

    `output` holds a pointer of 8 bytes for each array where there are several. Arguments may be `jax.ShapeDtypeStruct`s.
    """
    found = jax.jit(step, donate_argnums=donate).lower(*args).compile().memory_analysis()
    names = ("argument", "output", "alias", "temp")
    sizes = {name: getattr(found, f"{name}_size_in_bytes") for name in names}
    return {**sizes, "peak": sizes["argument"] + sizes["output"] + sizes["temp"] - sizes["alias"]}


def jax_flops(step: Callable[..., Any], *args: Any, compiled: bool = True) -> float | None:
    """The program's FLOPs by XLA's `cost_analysis`, compiled or as lowered; None where it does not say.

    Element-wise operations are included, so that it is never equal to a count of matrices; a scan's body is counted once.
    """
    lowered = jax.jit(step).lower(*args)
    return ((lowered.compile() if compiled else lowered).cost_analysis() or {}).get("flops")


def _residuals(loss: Callable[..., Any], params: Any, *data: Any) -> Bytes:
    jaxpr = jax.make_jaxpr(lambda p, *data: jax.vjp(lambda p: loss(p, *data), p)[1])(params, *data).jaxpr
    parameters = jaxpr.invars[: len(jax.tree.leaves(params))]
    kept = {id(v): v.aval for v in jaxpr.outvars if not hasattr(v, "val") and all(v is not p for p in parameters)}
    return nbytes(jax.ShapeDtypeStruct(aval.shape, np.dtype(aval.dtype)) for aval in kept.values())
