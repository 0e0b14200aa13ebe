"""Which state fields of two optimizers are compared with each other: by their names."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jax.tree_util import DictKey, GetAttrKey, SequenceKey, keystr, tree_flatten_with_path

# Names that mean the same: optax's, and those that torch.optim has for it.
KNOWN = (
    ("count", "step"),
    ("mu", "exp_avg"),
    ("mu", "grad_avg"),  # centered RMSprop
    ("mu", "momentum_buffer"),  # Muon
    ("nu", "exp_avg_sq"),
    ("nu", "square_avg"),  # RMSprop
    ("nu", "exp_inf"),  # Adamax
    ("nu_max", "max_exp_avg_sq"),
    ("trace", "momentum_buffer"),
    ("sum_of_squares", "sum"),
    ("e_g", "square_avg"),  # Adadelta
    ("e_x", "acc_delta"),
    ("step_sizes", "step_size"),  # Rprop
    ("v_row", "row_var"),  # Adafactor
    ("v_col", "col_var"),
    ("v", "variance"),
)

Fields = dict[str, dict[str, np.ndarray]]  # name of the field -> path of the leaf ("" for what all share) -> value


def paired(first: Iterable[str], second: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """The fields of the first to which fields of the second belong: as is given, else of one name, else of names that mean the same."""
    first, second = list(first), list(second)
    pairs = dict(given)
    for a, b in ((name, name) for name in first):
        _pair(pairs, a, b, first, second)
    for known in KNOWN:
        for a, b in (known, known[::-1]):
            _pair(pairs, a, b, first, second)
    return {a: pairs[a] for a in (*(name for name in first if name in pairs), *(name for name in pairs if name not in first))}


def _pair(pairs: dict[str, str], a: str, b: str, first: list[str], second: list[str]) -> None:
    if a in first and b in second and a not in pairs and b not in pairs.values():
        pairs[a] = b


def fields_of_tree(state: Any, paths: Iterable[str]) -> Fields:
    """The fields of an optax state: every part of it that has the paths of parameters, or a leaf that belongs to none, as a counter.

    A field is called by the key under which it stands; a state without keys is "state". Where several parts have one name and the same
    leaves, as two Adams in a chain, the later ones are "mu (2)" and so on. Parts with other leaves each, as of `optax.partition`, are one.
    """
    paths, parts = set(paths), {}
    for path, leaf in tree_flatten_with_path(state)[0]:
        if hasattr(leaf, "dtype") and isinstance(leaf.dtype, np.dtype):  # not a key of random numbers
            at = next((i for i in range(len(path) + 1) if keystr(path[i:]) in paths), len(path))
            part = parts.setdefault((_name(path[:at]), keystr(path[:at])), {})
            part[keystr(path[at:])] = np.array(leaf)
    found: Fields = {}
    for (name, _), part in parts.items():
        numbered = (name if i == 1 else f"{name} ({i})" for i in range(1, len(parts) + 1))
        free = next(name for name in numbered if not found.get(name, {}).keys() & part.keys())
        found.setdefault(free, {}).update(part)
    return found


def _name(path: tuple) -> str:
    """The innermost name, or else the place in the innermost tuple."""
    for key in reversed(path):
        if isinstance(key, GetAttrKey):
            return key.name
        if isinstance(key, DictKey):
            return str(key.key)
    return f"[{path[-1].idx}]" if path and isinstance(path[-1], SequenceKey) else "state"
