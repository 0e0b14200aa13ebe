"""Which parameter of a model each of an optimizer's is: by name, by its memory, or by a shape that no other has."""

from collections.abc import Sequence

from . import naming
from .parameters import Parameter, few


def places(of_optimizer: Sequence[Parameter], of_model: Sequence[Parameter]) -> list[int]:
    """The place in the model's order of each of an optimizer's parameters.

    Raises: ValueError where none of these tells, or names and memory contradict each other.
    """
    if len(of_optimizer) != len(of_model):
        raise ValueError(f"matching: the optimizer has {len(of_optimizer)} parameters, the matching {len(of_model)}.")
    by_memory = _by_memory(of_optimizer, of_model)
    if any(each.name is None for each in (*of_optimizer, *of_model)):
        return by_memory or _by_shape(of_optimizer, of_model)
    by_name = _by_name([str(each.name) for each in of_optimizer], [str(each.name) for each in of_model])
    for each, place, there in zip(of_optimizer, by_name, by_memory or by_name, strict=True):
        if place != there:
            raise ValueError(f"parameters: {each} was given, but the optimizer's is {of_model[there].name}.")
    return by_name


def _by_memory(of_optimizer: Sequence[Parameter], of_model: Sequence[Parameter]) -> list[int] | None:
    """Those of a live optimizer whose tensors are the model's own."""
    places_at: dict[tuple, set[int]] = {}
    for each in of_model:
        for where in each.whereabouts:
            places_at.setdefault(where, set()).add(each.place)
    found = [sorted({place for where in each.whereabouts for place in places_at.get(where, ())}) for each in of_optimizer]
    flat = [place for places in found for place in places]
    return flat if sorted(flat) == list(range(len(of_model))) and all(found) else None


def _by_name(names: Sequence[str], own: Sequence[str]) -> list[int]:
    found = naming.matched(names, own)
    if not found:
        raise ValueError(f"matching: the optimizer's parameters are {few(names)}; those of the matching are {few(own)}.")
    return [own.index(found[0][name]) for name in names]


def _by_shape(of_optimizer: Sequence[Parameter], of_model: Sequence[Parameter]) -> list[int]:
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for own in of_model:
        by_shape.setdefault(own.shape or (), []).append(own.place)
    found = []
    for each in of_optimizer:
        fitting = by_shape.get(each.shape, []) if each.shape is not None else list(range(len(of_model)))
        if len(fitting) != 1:
            candidates = few([of_model[place] for place in fitting]) or "none"
            raise ValueError(
                f"matching: {each} of the optimizer {each.shape or ''} may be any of {candidates}: its shape does not tell; give the live "
                "optimizer of this model, or parameters= in its order."
            )
        found += fitting
    if len(set(found)) < len(found):
        raise ValueError("matching: two parameters of the optimizer have the shape of one of the matching.")
    return found
