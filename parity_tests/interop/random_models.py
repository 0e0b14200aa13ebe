"""Random models as torch and as JAX have them, and what is true of each leaf.

Truth is what the generator did: leaf by leaf, which torch parameters it is made of, which elements, and in which order of axes. There is
one exception. Where the names of all leaves mean the names of all parameters (equal, after a prefix, or translated as documented), the
names are the truth, as a reader would be misled too. `Model.by_names` says so, by translations that are written here once more. Only
such names are permuted: where numbers alone tell, a reader would believe them as well.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from optparity import interop

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
WEIGHTS = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


class Holder(nn.Module):
    """What has one weight of its own."""

    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))


# GPT-2's layer, and one that only has the name of torch's: the weight of both is (in, out), as Flax has it.
Conv1D, OwnLinear = type("Conv1D", (Holder,), {}), type("Linear", (Holder,), {})


class Kind(NamedTuple):
    """A kind of module: how to make one of two sizes, its name in Flax, that of its weight, and the axes of that; None if it is flipped."""

    make: Callable[[int, int, bool], nn.Module]
    flax: str
    weight: str
    axes: tuple[int, ...]
    flipped: bool = False


KINDS = {
    "Linear": Kind(lambda a, b, bias: nn.Linear(a, b, bias=bias), "Dense", "kernel", (1, 0)),
    "Conv1d": Kind(lambda a, b, bias: nn.Conv1d(a, b, 2, bias=bias), "Conv", "kernel", (2, 1, 0)),
    "ConvTranspose1d": Kind(lambda a, b, bias: nn.ConvTranspose1d(a, b, 2, bias=bias), "ConvTranspose", "kernel", (2, 0, 1), flipped=True),
    "Embedding": Kind(lambda a, b, bias: nn.Embedding(a, b), "Embed", "embedding", (0, 1)),
    "LayerNorm": Kind(lambda a, b, bias: nn.LayerNorm(a, bias=bias), "LayerNorm", "scale", (0,)),
    "BatchNorm1d": Kind(lambda a, b, bias: nn.BatchNorm1d(a), "BatchNorm", "scale", (0,)),
    "Conv1D": Kind(lambda a, b, bias: Conv1D(a, b), "Dense", "kernel", (0, 1)),
    "OwnLinear": Kind(lambda a, b, bias: OwnLinear(a, b), "Dense", "kernel", (0, 1)),
}
USUAL = ("Linear", "Linear", "OwnLinear", "LayerNorm", "Embedding", "Conv1d")
SIZES = st.sampled_from([2, 2, 2, 3])


class Leaf(NamedTuple):
    """A leaf in JAX: the parameters that it is made of, each whole or cut, how their axes lie, and where they are stacked."""

    path: str
    pieces: tuple[tuple[str, tuple[slice, ...]], ...]
    axes: tuple[int, ...]
    flipped: bool = False
    stack: int | None = None

    def value(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """What it holds, of arrays by the names of torch's parameters."""
        parts = [np.transpose(arrays[name][cut], self.axes) for name, cut in self.pieces]
        parts = [part[::-1] if self.flipped else part for part in parts]
        return parts[0] if self.stack is None else np.stack(parts, self.stack)

    def source(self) -> Any:
        """The same as a caller says it."""
        parts = [interop.Part(name, cut[-1].start, cut[-1].stop, len(cut) - 1) if cut else name for name, cut in self.pieces]
        return parts[0] if self.stack is None else interop.Stacked(parts, self.stack)

    @property
    def layout(self) -> tuple[int, ...] | None:
        return None if self.axes == tuple(range(len(self.axes))) else self.axes


@dataclass(frozen=True)
class Model:
    """A model in torch, and its leaves in JAX."""

    module: nn.Module
    leaves: tuple[Leaf, ...]
    cut: bool  # whether a leaf is a part or a stack, which a caller has to say
    scheme: str

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.module.named_parameters())

    def by_names(self, layouts: Mapping[str, Any]) -> "tuple[Leaf, ...] | None":
        """The leaves as their names have them, where these mean the names of all parameters, and as a caller's layouts have them."""
        here = dict(zip(_canonical([leaf.path for leaf in self.leaves]), self.leaves, strict=True))
        there = dict(zip(_canonical(list(self.parameters)), self.parameters, strict=True))
        if self.cut or len(here) < len(self.leaves) or here.keys() != there.keys():
            return None
        own = {leaf.pieces[0][0]: leaf for leaf in self.leaves}
        return tuple(self._named(leaf, own[there[name]], layouts) for name, leaf in here.items())

    def _named(self, leaf: Leaf, meant: Leaf, layouts: Mapping[str, Any]) -> Leaf:
        """A leaf as the one whose name it has. Where that one's axes do not fit its shape, others may."""
        shape, count = self._shape(leaf), len(meant.axes)
        if leaf.path in layouts:
            return meant._replace(path=leaf.path, axes=layouts[leaf.path] or tuple(range(count)), flipped=False)
        for axes in (meant.axes, tuple(range(count)), (*range(2, count), *((1, 0)[-count:]))):
            if self._shape(meant._replace(axes=axes)) == shape:
                return meant._replace(path=leaf.path, axes=axes, flipped=meant.flipped and axes == meant.axes)
        return meant._replace(path=leaf.path)

    def _shape(self, leaf: Leaf) -> tuple[int, ...]:
        return tuple(self.parameters[leaf.pieces[0][0]].shape[axis] for axis in leaf.axes)


def _canonical(names: Sequence[str]) -> list[str]:
    """Names after the documented translations, without what they have in common at the beginning."""
    spelled = [[token for token in name.split(".") if token not in WRAPPERS] for name in names]
    spelled = [[*(re.sub(r"_(\d+)$", r".\1", token) for token in path), WEIGHTS.get(last, last)] for *path, last in spelled]
    split = [".".join(tokens).split(".") for tokens in spelled]
    while all(len(tokens) > 1 for tokens in split) and len({tokens[0] for tokens in split}) == 1:
        split = [tokens[1:] for tokens in split]
    return [".".join(tokens) for tokens in split]


# Where modules are in torch

STYLES: dict[str, Callable[[int], str]] = {
    "list": lambda i: f"layers.{i}",
    "gaps": lambda i: f"layers.{2 * i}",
    "late": lambda i: f"layers.{9 + i}",
    "bare": lambda i: f"{i}",
    "words": lambda i: ("stem", "head", "enc", "dec", "attn", "mlp")[i],
    "blocks": lambda i: f"h.{i // 2}.{('fc1', 'fc2')[i % 2]}",
    "two": lambda i: f"{('enc', 'dec')[i % 2]}.{i}",
    "twice": lambda i: f"{('enc', 'dec')[i % 2]}.{i // 2}",
}
SWAP = {"enc": "dec", "dec": "enc", "fc1": "fc2", "fc2": "fc1", "stem": "head", "head": "stem"}
OTHER = {"enc": "down", "dec": "up", "layers": "blocks", "h": "blocks"}


def _swapped(path: str, words: Mapping[str, str]) -> str:
    return ".".join(words.get(token, token) for token in path.split("."))


def _flax(path: str) -> str:
    """Numbers as Flax has them: `layers_10`; a bare one gets a word."""
    return re.sub(r"(^|\.)(\d+)", lambda found: f"_{found[2]}" if found[1] else f"layers_{found[2]}", path)


def _shifted(path: str) -> str:
    return re.sub(r"\d+", lambda found: str(int(found[0]) + 1), path)


def _renumbered(path: str, count: int) -> str:
    """Numbers from the other end: only the words tell."""
    return re.sub(r"\d+", lambda found: str(count - 1 - int(found[0]) if int(found[0]) < count else int(found[0])), path)


def _counted(modules: Sequence[tuple[str, str]]) -> list[str]:
    """Flax's own names, which count each class for itself: `Dense_0`, `LayerNorm_0`, `Dense_1`."""
    seen: dict[str, int] = {}
    found = []
    for _, kind in modules:
        name = KINDS[kind].flax
        seen[name] = seen.get(name, -1) + 1
        found.append(f"{name}_{seen[name]}")
    return found


SCHEMES: dict[str, Callable[[Sequence[tuple[str, str]]], list[str]]] = {
    "equal": lambda modules: [path for path, _ in modules],
    "translated": lambda modules: [_flax(path) for path, _ in modules],
    "other words": lambda modules: [_flax(_swapped(path, OTHER)) for path, _ in modules],
    "classes": lambda modules: [f"{KINDS[kind].flax}_{i}" for i, (_, kind) in enumerate(modules)],
    "counted": _counted,
    "shifted": lambda modules: [_flax(_shifted(path)) for path, _ in modules],
    "swapped": lambda modules: [_flax(_swapped(path, SWAP)) for path, _ in modules],
    "renumbered": lambda modules: [_flax(_renumbered(path, len(modules))) for path, _ in modules],
    "unrelated": lambda modules: [f"m{chr(ord('z') - i)}" for i, _ in enumerate(modules)],
}

PERMUTED = ("equal", "translated", "shifted", "unrelated")


@st.composite
def models(draw) -> Model:
    """A model of up to four modules, in torch and in JAX."""
    kinds = draw(st.lists(st.sampled_from(USUAL if draw(st.booleans()) else tuple(KINDS)), min_size=1, max_size=4))
    scheme = draw(st.sampled_from([*sorted(SCHEMES), "unrelated", "unrelated", "renumbered"]))
    style = draw(st.sampled_from(["two", "two", "twice"] if scheme in ("renumbered", "swapped") else sorted(STYLES)))
    modules = [(STYLES[style](i), kind) for i, kind in enumerate(kinds)]
    here = dict(zip((path for path, _ in modules), SCHEMES[scheme](modules), strict=True))
    root, prefix = nn.Module(), draw(st.sampled_from(["", "", "module", "module._orig_mod"]))
    for path, kind in draw(st.permutations(modules)):
        module = KINDS[kind].make(draw(SIZES), draw(SIZES), draw(st.booleans()))
        _put(root, f"{prefix}.{path}" if prefix else path, module)
    if draw(st.integers(0, 5)) == 0:
        _tie(root)
    leaves = [
        _leaf(draw, name, here[name.removeprefix(f"{prefix}.").rpartition(".")[0]], dict(modules), scheme, prefix)
        for name, _ in root.named_parameters()
    ]
    cut = draw(st.integers(0, 3)) == 0
    leaves = _cut_and_stacked(draw, leaves, dict(root.named_parameters())) if cut else leaves
    if scheme in PERMUTED and draw(st.integers(0, 2)) == 0:
        leaves, scheme = _permuted(draw, leaves), f"permuted {scheme}"
    before = draw(st.sampled_from(["", "", "params."]))
    leaves = tuple(leaf._replace(path=before + leaf.path) for leaf in draw(st.permutations(leaves)))
    return Model(root, leaves, any(leaf.stack is not None or leaf.pieces[0][1] for leaf in leaves), scheme)


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    *above, last = path.split(".")
    for token in above:
        if not hasattr(root, token):
            root.add_module(token, nn.Module())
        root = root.get_submodule(token)
    root.add_module(last, module)


def _tie(root: nn.Module) -> None:
    """Make one parameter of two of a shape, as embeddings and the last layer often are."""
    seen: dict[Any, nn.Parameter] = {}
    for module in root.modules():
        if isinstance(weight := getattr(module, "weight", None), nn.Parameter):
            module.weight = seen.setdefault((type(module), weight.shape), weight)


def _leaf(draw, name: str, there: str, kinds: Mapping[str, str], scheme: str, prefix: str) -> Leaf:
    """The leaf of a parameter in a module that is called `there` in JAX."""
    path, _, last = name.removeprefix(f"{prefix}.").rpartition(".")
    kind = KINDS[kinds[path]]
    if last == "bias" or scheme.startswith("equal"):
        axes = 1 if last == "bias" else len(kind.axes)
        return Leaf(f"{there}.{last}", ((name, ()),), tuple(range(axes)))
    if scheme == "unrelated" and kind.weight == "kernel" and draw(st.integers(0, 3)):  # a name that says nothing of the axes
        axes = tuple(range(len(kind.axes))) if draw(st.booleans()) else kind.axes
        return Leaf(f"{there}.w", ((name, ()),), axes)
    return Leaf(f"{there}.{kind.weight}", ((name, ()),), kind.axes, kind.flipped)


def _permuted(draw, leaves: Sequence[Leaf]) -> list[Leaf]:
    """Each name at another leaf whose name has the same last part, which says how the axes lie."""
    found = []
    for last in sorted({leaf.path.rpartition(".")[2] for leaf in leaves}):
        own = [leaf for leaf in leaves if leaf.path.rpartition(".")[2] == last]
        paths = draw(st.permutations([leaf.path for leaf in own]))
        found += [leaf._replace(path=path) for leaf, path in zip(own, paths, strict=True)]
    return found


def _cut_and_stacked(draw, leaves: Sequence[Leaf], parameters: Mapping[str, nn.Parameter]) -> list[Leaf]:
    """Leaves of one kind as one, and another in two parts."""
    alike: dict[Any, list[Leaf]] = {}
    for leaf in leaves:
        alike.setdefault((parameters[leaf.pieces[0][0]].shape, leaf.axes, leaf.flipped), []).append(leaf)
    found = []
    for (shape, axes, _), own in alike.items():
        what = draw(st.sampled_from(["stack", "cut", "leave"]))
        if what == "stack" and len(own) > 1:
            pieces = tuple(leaf.pieces[0] for leaf in draw(st.permutations(own)))
            found.append(own[0]._replace(pieces=pieces, stack=draw(st.integers(0, len(axes)))))
        elif what == "cut":
            axis = draw(st.integers(0, len(shape) - 1))
            at, around = draw(st.integers(1, shape[axis] - 1)), (slice(None),) * axis
            module, _, last = own[0].path.rpartition(".")
            for part, piece in (("q", slice(0, at)), ("k", slice(at, shape[axis]))):
                found.append(own[0]._replace(path=f"{module}.{part}.{last}", pieces=((own[0].pieces[0][0], (*around, piece)),)))
            found += own[1:]
        else:
            found += own
    return found
