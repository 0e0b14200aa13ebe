"""A group's step as one compiled call for all its parameters on CPUs, where the library is there; elsewhere the rule."""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from one_pass import library
from one_pass.program import Program

from . import numerics as nx


class Leaf(NamedTuple):
    """What lies here of a parameter, its gradient and its state, and which step is its next."""

    p: Tensor
    g: Tensor
    state: Mapping[str, Tensor]
    t: float
    computed_in: str


def program_of(rule: Callable, prepare: Callable | None, hyper: Any, kept: Iterable[str]) -> Program | None:
    """The library's program for a rule with these hyper-parameters, if there is one that keeps this state."""
    if not library.is_available():
        return None
    found = _found(library.Kernel(rule, prepare, type(hyper)), frozenset(name for name, value in hyper._asdict().items() if value))
    return found if found and set(found.fields) == set(kept) else None


@functools.cache
def _found(kernel: library.Kernel, is_set: frozenset[str]) -> Program | None:
    return library.find(kernel, is_set.__contains__)


def takes(leaves: Sequence[Leaf]) -> bool:
    """Whether all are plain tensors on the CPU, each whole in memory, and none that is written lies across another."""
    if torch.compiler.is_compiling():
        return False
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
    """Whether its memory holds its numbers in their order: no view that negates them, no subclass that means something else."""
    return type(x) in (Tensor, torch.nn.Parameter) and x.device.type == "cpu" and x.is_contiguous() and not x.is_neg()


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
        numbers, numbered, table = np.array([*hyper, t]), np.array([library.KINDS[kind] for kind in kinds]), np.array(rows)
        pointers = (x.ctypes.data for x in (numbers, numbered, table))
        library.available().one_pass_step(program.name.encode(), *pointers, len(own), 1, torch.get_num_threads())
    torch.autograd.graph.increment_version([x for leaf in leaves for x in (leaf.p, *leaf.state.values())])
