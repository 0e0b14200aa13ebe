"""A group's step as one compiled call for all its parameters on CPUs, where the library is there; elsewhere the rule."""

import functools
import itertools
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # pyright: ignore[reportMissingImports]
from torch.utils._python_dispatch import _get_current_dispatch_mode

from one_pass import library
from one_pass.program import Program

from . import numerics as nx


class Leaf(NamedTuple):
    """What lies here of a parameter, its gradient and its state; where its steps are counted, if they are, and which one is its next."""

    p: Tensor
    g: Tensor
    state: Mapping[str, Tensor]
    counter: dict[str, Any] | None
    t: float
    computed_in: str


def program_of(rule: Callable, prepare: Callable | None, hyper: Any, kept: Iterable[str]) -> Program | None:
    """The library's program for a rule with these hyper-parameters, if there is one that keeps this state."""
    if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None or not library.is_available():
        return None  # what traces or counts operations sees none of the library's
    found = _found(library.Kernel(rule, prepare, type(hyper)), frozenset(name for name, value in hyper._asdict().items() if value))
    return found if found and set(found.fields) == set(kept) else None


@functools.cache
def _found(kernel: library.Kernel, is_set: frozenset[str]) -> Program | None:
    return library.find(kernel, is_set.__contains__)


def takes(leaves: Sequence[Leaf]) -> bool:
    """Whether all are plain tensors on the CPU, each whole in memory, and none that is written lies across another."""
    written, read = [], set()
    for leaf in leaves:
        tensors = (leaf.p, leaf.g, *leaf.state.values())
        if not all(_is_plain(x) for x in tensors):
            return False
        p, g, *state = ((x.data_ptr(), x.numel() * x.element_size()) for x in tensors)
        written += [p, *state]
        if g != p:
            read.add(g)  # two leaves may have one gradient
    return not _overlap([each for each in (*written, *read) if each[1]])


def _is_plain(x: Tensor) -> bool:
    """Whether its memory holds its numbers in their order: no view that negates them, nothing that stands for others or for zeros."""
    if type(x) not in (Tensor, torch.nn.Parameter) or x.device.type != "cpu" or is_functorch_wrapped_tensor(x):
        return False
    return x.is_contiguous() and not x.is_neg() and not x._is_zerotensor()


def _overlap(ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether two of some ranges (start, bytes) have a byte in common."""
    along = sorted(ranges)
    return any(start + size > after for (start, size), (after, _) in itertools.pairwise(along))


def step(program: Program, hyper: Any, leaves: Sequence[Leaf]) -> None:
    """Step every leaf in place: one call for those that are alike in dtypes and in the number of their step."""
    groups: dict[tuple, list[Leaf]] = {}
    for leaf in leaves:
        kinds = (leaf.computed_in, *(nx.dtype_name(x.dtype) for x in (leaf.p, leaf.g, *(leaf.state[name] for name in program.fields))))
        groups.setdefault((leaf.t, kinds), []).append(leaf)
    for (t, kinds), own in groups.items():
        rows = [
            [leaf.p.numel(), leaf.g.data_ptr(), leaf.p.data_ptr(), leaf.p.data_ptr()]
            + [leaf.state[name].data_ptr() for name in program.fields for _ in range(2)]
            for leaf in own
        ]
        values = np.array([float(value if isinstance(value, numbers.Real) else bool(value)) for value in (*hyper, t)])
        numbered, table = np.array([library.KINDS[kind] for kind in kinds]), np.array(rows)
        pointers = (x.ctypes.data for x in (values, numbered, table))
        if library.available().one_pass_step(program.name.encode(), *pointers, len(own), 1, torch.get_num_threads()):
            raise RuntimeError(f"one_pass: the library has no program {program.name}.")
    torch.autograd.graph.increment_version([x for leaf in leaves for x in (leaf.p, *leaf.state.values())])
