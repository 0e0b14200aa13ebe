"""Subnormals: XLA on CPU flushes them to zero and cannot be told not to, so here PyTorch is made to flush as well.

`torch.set_flush_denormal` reaches the calling thread and those that start later, never a pool that runs already. With one thread,
every operation runs in the calling thread, and the setting holds from its first to its last line.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import jax
import numpy as np


@cache
def jax_flushes(dtype: str = "float32") -> bool:
    """Whether this jax backend flushes subnormals, by trying it."""
    with jax.enable_x64(dtype == "float64"):
        tiny = jax.numpy.full(1024, np.finfo(dtype).tiny, dtype)
        return not jax.jit(lambda x: x * 0.5)(tiny).any()


def torch_flushing_like_jax() -> AbstractContextManager[None]:
    """Within it, torch and NumPy in this thread treat subnormals as this jax backend does; afterwards all is as before."""
    return torch_flushing(True) if jax_flushes() else nullcontext()


@contextmanager
def torch_flushing(flushes: bool) -> Iterator[None]:
    """Within it, torch and NumPy in this thread flush subnormals, or keep them; afterwards all is as before.

    Raises: RuntimeError where this processor cannot be told so.
    """
    import torch

    threads, flushed = torch.get_num_threads(), torch_flushes()
    torch.set_num_threads(1)
    torch.set_flush_denormal(flushes)
    try:
        if torch_flushes() != flushes:
            raise RuntimeError(f"torch cannot {'flush' if flushes else 'keep'} subnormals: torch.set_flush_denormal has no effect here")
        yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(threads)


def torch_flushes(elements: int = 1024, dtype: str = "float32") -> bool:
    """Whether torch flushes each of so many subnormals, as its threads are set now."""
    import torch

    tiny = torch.full((elements,), float(np.finfo(dtype).tiny), dtype=getattr(torch, dtype))
    return not (tiny * 0.5).view(torch.int32).any()
