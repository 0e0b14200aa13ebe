"""Which leaf in JAX is which parameter in torch, and how its axes lie: proven, or given, or refused.

Names decide where they mean the same (`naming` has the ways), or are given. Otherwise shapes do, if only one assignment fits them.
No order is trusted: JAX sorts the keys of a dict, torch does not.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from . import naming
from .assignment import UndecidedError, only_assignment
from .layouts import AS_IN_TORCH, Layout, apply, inverse, is_flipped, of_a_kernel, shape_after
from .leaves import Leaves
from .parameters import Parameter, few, of_weights
from .sources import Part, Source, Stacked, check_whole, gathered_shape, source

Names = Mapping[str, Any] | Callable[[str], Any]
Layouts = Mapping[str, Layout] | Callable[[str], Layout]
Values = Mapping[str, np.ndarray]

CARRY_FIRST = "carry the weights first, by the same names, or give the optimizer's state_dict()."


class Pair(NamedTuple):
    """A leaf and where it comes from. The names in `source` are places in torch's order; `way` says what decided."""

    path: str
    shape: tuple[int, ...]
    source: Source
    layout: Layout
    way: str
    note: str = ""


class Matching:
    """Which leaf is which parameter, made once for weights, optimizer and the way back. Printed, it is a table.

    Args:
        params: a tree of the shapes and dtypes in JAX; its values do not matter.
        weights: the torch model, or a mapping from its parameters' names to their tensors. A model tells more: which tensors are no
            parameters, and what its modules are, so that a square kernel is known to be transposed.
        names: path of a leaf -> where it comes from, as a mapping or a function: a name, an index in torch's order, a `Part` of a
            parameter, or several `Stacked`. Paths have dots ("hidden.kernel") or are JAX's own ("['hidden']['kernel']").
        layouts: path of a leaf -> what its torch weight went through to become it: axes as (1, 0), a `Reshape`, or several of these. A
            `kernel` of Flax is found without, where its shape or the torch module tells. A `weight`, `scale` or `embedding`, or a leaf
            under its own name in torch, is as it is there. Another is found where its shape tells.
    Raises: ValueError where names and shapes leave two answers, or none, with the candidates.
    Example:
        >>> import torch
        >>> print(Matching({"hidden": {"kernel": jnp.zeros((3, 2))}}, {"hidden.weight": torch.zeros(2, 3)}))
        leaf           shape   in torch       layout  by
        hidden.kernel  (3, 2)  hidden.weight  (1, 0)  translated
    """

    def __init__(self, params: Any, weights: Any, *, names: Names | None = None, layouts: Layouts | None = None):
        self._match(Leaves(params), of_weights(weights), names, layouts, {})

    @classmethod
    def of_parameters(
        cls, leaves: Leaves, parameters: Sequence[Parameter], names: Names | None, layouts: Layouts | None, values: Values | None = None
    ) -> "Matching":
        """Of parameters of which not all may be known; `values` of leaves are those of their parameters, where both are there."""
        made = cls.__new__(cls)
        made._match(leaves, parameters, names, layouts, values or {})
        return made

    def _match(self, leaves: Leaves, parameters: Sequence[Parameter], names, layouts, values: Values) -> None:
        self.leaves, self.parameters = leaves, tuple(parameters)
        self._layouts, self._values = leaves.given(layouts, "layouts"), values
        self._all_there = all(parameter.value is not None for parameter in parameters)
        origins = self._found() if names is None else {path: (origin, "given") for path, origin in self._given(names).items()}
        self._check_whole({path: origin for path, (origin, _) in origins.items()})
        self.pairs = {path: self._pair(path, *origins[path]) for path in leaves.paths}

    def __str__(self) -> str:
        table = [("leaf", "shape", "in torch", "layout", "by"), *self.rows()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Of each leaf: path, shape, where it comes from, layout, and what decided."""
        for pair in self.pairs.values():
            named = pair.source.renamed(lambda place: self._title(place))
            layout = "as it is" if pair.layout is None else str(pair.layout)
            yield pair.path, str(pair.shape), str(named), layout, f"{pair.way}; {pair.note}" if pair.note else pair.way

    def _title(self, place: int) -> str:
        return self.parameters[place].name or str(self.parameters[place])

    # Which parameter

    def _given(self, names: Names) -> dict[str, Source]:
        """What the caller says, by places."""
        given, found = self.leaves.given(names, "names"), {}
        for path in self.leaves.paths:
            if path not in given:
                raise ValueError(f"names: leaf {path} is not among them; each leaf is one parameter.")
            if not isinstance(given[path], str | int | Part | Stacked):
                raise ValueError(f"names: leaf {path} is {given[path]!r}; a name, an index, a Part or Stacked is needed.")
            found[path] = source(given[path]).renamed(lambda name, path=path: self._place(path, name))
        return found

    def _place(self, path: str, name: str | int) -> int:
        names, count = [parameter.name for parameter in self.parameters], len(self.parameters)
        if isinstance(name, str):
            if set(names) <= {None}:
                raise ValueError(f"names: leaf {path} is {name!r}, but the groups hold no param_names; give parameters, or indices.")
            if name not in names:
                raise ValueError(f"names: leaf {path} is {name!r}; one of {', '.join(map(str, names))} is needed.")
            if names.count(name) > 1:
                raise ValueError(f"names: leaf {path} is {name!r}, but so are two parameters in torch; give indices.")
            return names.index(name)
        if not isinstance(name, int) or isinstance(name, bool) or not 0 <= name < count:
            raise ValueError(f"names: leaf {path} is {name!r}; a name or an index below {count} is needed.")
        return name

    def _found(self) -> dict[str, tuple[Source, str]]:
        """Each leaf's parameter, and what decided."""
        names = [parameter.name for parameter in self.parameters]
        if len(names) != len(self.leaves.paths):
            raise ValueError(self._counts())
        known = [name for name in names if name is not None]
        for name in known:
            if known.count(name) > 1 and not self._values:
                raise ValueError(f"names: two parameters in torch are {name!r}; names is needed, with indices.")
        by_name = naming.matched(self.leaves.paths, known) if len(set(known)) == len(names) else None
        if by_name:
            found, way = by_name
            return {path: (source(names.index(found[path])), way) for path in self.leaves.paths}
        return self._by_fit()

    def _counts(self) -> str:
        """Why there is no parameter for each leaf, by name where names tell."""
        paths, names = self.leaves.paths, [str(parameter) for parameter in self.parameters]
        return (
            f"names: {len(paths)} leaves but {len(names)} parameters in torch; each leaf is one parameter. Leaves: {few(paths)}. "
            f"In torch: {few(names)}."
        )

    def _by_fit(self) -> dict[str, tuple[Source, str]]:
        """The only assignment that shapes allow, and values where they are known."""
        alike: dict[tuple, list[Parameter]] = {}
        for parameter in self.parameters:
            for look in self._looks(parameter):
                alike.setdefault(look, []).append(parameter)
        candidates = {path: set(self._candidates(path, alike)) for path in self.leaves.paths}
        for path, places in candidates.items():
            if not places:
                raise ValueError(self._no_candidate(path))
        try:
            found = only_assignment(candidates)
        except UndecidedError as error:
            raise ValueError(self._undecided(error.left)) from None
        way = "value" if self._values else "shape"
        for path, place in found.items():
            if any(parameter.name == path for parameter in self.parameters) and self.parameters[place].name != path:
                raise ValueError(self._undecided({path: {place}}))
        return {path: (source(place), way) for path, place in found.items()}

    def _looks(self, parameter: Parameter) -> Iterator[tuple]:
        """What leaves find a parameter by: its shape, and its first elements where leaves have values."""
        yield parameter.shape, None
        if self._values and parameter.value is not None:
            yield parameter.shape, start_of(parameter.value)

    def _candidates(self, path: str, alike: Mapping[tuple, Sequence[Parameter]]) -> Iterator[int]:
        """The parameters that it could be; `alike` spares trying those that look otherwise."""
        value = self._values.get(path)
        known = value is not None and self._all_there
        array, layouts = value if value is not None and known else np.broadcast_to(np.False_, self._shape(path)), [None]
        layouts = [self._layouts[path]] if path in self._layouts else [*layouts, *of_a_kernel(array.ndim, ())]
        looks: set[tuple] = {(None, None)}
        for layout in layouts:
            with contextlib.suppress(ValueError):  # a layout of another shape
                there = apply(inverse(layout), array)
                looks.add((there.shape, start_of(there) if known else None))
        for parameter in {each.place: each for look in looks for each in alike.get(look, ())}.values():
            if next(self._fitting(path, parameter), False) is not False:
                yield parameter.place

    def _no_candidate(self, path: str) -> str:
        shown = few([f"{parameter} {parameter.shape}" for parameter in self.parameters])
        if path in self._values and self._has_shape(path):
            return f"from_torch: leaf {path} has the value of no parameter in torch: {shown}; {CARRY_FIRST}"
        layout = f" in layout {self._layouts[path]}" if self._layouts.get(path) else ""
        return f"names: no parameter in torch has the shape of leaf {path} {self._shape(path)}{layout}: {shown}."

    def _has_shape(self, path: str) -> bool:
        """Whether a parameter could be this leaf but for its value."""
        shape = self._shape(path)
        return any(
            each.shape is not None and shape_after(layout, each.shape) == shape
            for each in self.parameters
            for layout in self._possible(path, each, len(shape))
        )

    def _undecided(self, left: Mapping[str, set[int]]) -> str:
        path, places = min(left.items(), key=lambda pair: bool(pair[1]))
        names = {parameter.name for parameter in self.parameters if parameter.name is not None}
        same = sorted(names & set(self.leaves.paths))
        if same:
            here = ", ".join(path for path in self.leaves.paths if path not in names)
            there = ", ".join(sorted(name for name in names if name not in self.leaves.by_path))
            return f"names: some leaves and parameters have the same names, but only leaves {here}, only torch {there}; names is needed."
        if not places:
            others = [each for each in self.leaves.paths if each != path and self._shape(each) == self._shape(path)]
            return (
                f"names: leaf {path} {self._shape(path)} is left without a parameter in torch: all of its shape are leaves {few(others)}."
            )
        candidates = few([str(self.parameters[place]) for place in sorted(places)])
        return (
            f"names: leaf {path} {self._shape(path)} may be any of {candidates}: its shape does not tell, and no names do; "
            "names or parameters= is needed."
        )

    # How its axes lie

    def _shape(self, path: str) -> tuple[int, ...]:
        return tuple(jnp.shape(self.leaves.by_path[path]))

    def _fitting(self, path: str, parameter: Parameter) -> Iterator[Layout]:
        """The layouts in which a parameter would be a leaf."""
        shape, value = self._shape(path), self._values.get(path)
        for layout in self._possible(path, parameter, len(shape)):
            if parameter.shape is None:
                yield layout
                continue
            fits = shape_after(layout, parameter.shape) == shape
            theirs = parameter.value if fits and value is not None else None
            if fits and (theirs is None or value is None or same_bits(apply(layout, theirs), value)):
                yield layout

    def _possible(self, path: str, parameter: Parameter, axes: int) -> Iterator[Layout]:
        """A weight under the name that it has in torch lies as it does there. Of a name that says nothing, any layout may be meant."""
        last, theirs = path.rpartition(".")[2], (parameter.name or "").rpartition(".")[2]
        if path in self._layouts:
            yield self._layouts[path]
        elif last == "kernel" and theirs != "kernel":
            yield from of_a_kernel(axes, parameter.module)
        elif last in (theirs, *AS_IN_TORCH) or parameter.shape is None:
            yield None
        else:
            yield from of_a_kernel(axes, ())

    def _pair(self, path: str, origin: Source, way: str) -> Pair:
        shape, parameters = self._shape(path), [self.parameters[part.name] for part in origin.parts]
        inner = shape if origin.axis is None else shape[: origin.axis] + shape[origin.axis + 1 :]
        if origin.axis is not None and (origin.axis >= len(shape) or shape[origin.axis] != len(origin.parts)):
            raise ValueError(f"names: leaf {path} has shape {shape}; a stack of {len(origin.parts)} along axis {origin.axis} has not.")
        possible = list(self._possible(path, parameters[0], len(inner)))
        fitting = [layout for layout in possible if self._fits(origin, layout, shape)]
        if self._values and len(fitting) > 1:  # values tell more
            fitting = list(self._fitting(path, parameters[0])) or fitting
        if not fitting:
            raise ValueError(self._no_layout(path, origin, possible))
        if len(fitting) > 1 and sum(size > 1 for size in inner) > 1:
            raise ValueError(self._two_layouts(path, origin, fitting))
        if path not in self._layouts and is_flipped(fitting[0], inner):
            raise ValueError(
                f"layouts: leaf {path} {shape} may be {origin.renamed(self._title)} as a transposed convolution only, whose kernel Flax "
                "flips: no layout does; give layouts where it is not flipped."
            )
        square = len(inner) == 2 and inner[0] == inner[1] > 1 and path not in self._layouts
        note = f"square: {self._decided(path, parameters[0])}" if square else ""
        return Pair(path, shape, origin, fitting[0], way, note)

    def _decided(self, path: str, parameter: Parameter) -> str:
        if path in self._values:
            return "its values tell"
        known = path.rpartition(".")[2] == "kernel" and parameter.module
        return f"{parameter.module[0]} tells" if known else "taken as it is"

    def _fits(self, origin: Source, layout: Layout, shape: tuple[int, ...]) -> bool:
        if any(self.parameters[part.name].shape is None for part in origin.parts):
            return True
        try:
            return gathered_shape(origin, layout, lambda place: self.parameters[place].shape or ()) == shape
        except ValueError:
            return False

    def _no_layout(self, path: str, origin: Source, possible: Sequence[Layout]) -> str:
        layout, named = possible[0], origin.renamed(self._title)
        theirs = self.parameters[origin.parts[0].name].shape
        try:
            shape = gathered_shape(origin, layout, lambda place: self.parameters[place].shape or ())
            became = f"has {theirs} in torch" if shape == theirs else f"has {theirs} in torch, which makes {shape}"
        except ValueError as error:
            became = str(error)
        tried = ", nor does any layout of a kernel" if len(possible) > 1 else "" if layout is None else f" (layout {layout})"
        return f"layouts: leaf {path} has shape {self._shape(path)}; {named} {became}{tried}."

    def _two_layouts(self, path: str, origin: Source, fitting: Sequence[Layout]) -> str:
        ways = " or ".join("as it is" if layout is None else f"with axes {layout}" for layout in fitting)
        return (
            f"layouts: leaf {path} {self._shape(path)} may be {origin.renamed(self._title)} {ways}: its shape does not tell; give layouts"
            f"{', or the torch model as weights' if path.endswith('kernel') else ''}."
        )

    def _check_whole(self, origins: Mapping[str, Source]) -> None:
        """Each element of each parameter is in one leaf."""
        holders: dict[int, list[tuple[str, Part]]] = {}
        for path, origin in origins.items():
            for part in origin.parts:
                holders.setdefault(part.name, []).append((path, part))
        for parameter in self.parameters:
            held = holders.get(parameter.place, [])
            if not held:
                raise ValueError(f"names: {parameter} in torch is no leaf; {len(self.leaves.paths)} leaves are {few(self.leaves.paths)}.")
            if len(held) > 1 and any(part.whole for _, part in held):
                raise ValueError(f"names: leaves {held[0][0]} and {held[1][0]} are both {parameter}.")
            if not held[0][1].whole:
                check_whole([part._replace(name=self._title(part.name)) for _, part in held], parameter.shape)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Of arrays of one shape; a few elements first, as most arrays differ in these."""
    if a.dtype != b.dtype:
        return False
    return start_of(a) == start_of(b) and a.tobytes() == b.tobytes()


def start_of(array: np.ndarray) -> bytes:
    """The first elements."""
    return np.array(array.flat[:16]).tobytes()


def telling(value: Any) -> np.ndarray | None:
    """A leaf's elements, if they tell it from others: they are there, and not all zeros or all ones."""
    if not isinstance(value, np.ndarray) and not getattr(value, "is_fully_addressable", False):
        return None
    array = np.asarray(value)
    return None if (array == 0).all() or (array == 1).all() else array
