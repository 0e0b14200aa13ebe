"""The only way to give each leaf one of its candidates, if there is only one."""

from collections.abc import Mapping


class UndecidedError(Exception):
    """There is no such way, or more than one; `left` are the candidates of the leaves that are left."""

    def __init__(self, left: Mapping[str, set[int]]):
        super().__init__()
        self.left = left


def only_assignment(candidates: Mapping[str, set[int]]) -> dict[str, int]:
    """The candidate of each leaf, each candidate of one leaf.

    There is one way exactly if one can go on finding a leaf with one candidate left, or a candidate of one leaf: of two ways, some leaves
    could exchange theirs in a circle, and each of these has two.

    Raises: UndecidedError.
    """
    here = {path: set(places) for path, places in candidates.items()}
    there: dict[int, set[str]] = {}
    for path, places in here.items():
        for place in places:
            there.setdefault(place, set()).add(path)
    found: dict[str, int] = {}
    while here:
        sure = next(((path, *places) for path, places in here.items() if len(places) == 1), None)
        sure = sure or next(((*paths, place) for place, paths in there.items() if len(paths) == 1), None)
        if sure is None:
            raise UndecidedError(here)
        path, place = sure
        found[path] = place
        for other in here.pop(path):
            there[other].discard(path)
        for other in there.pop(place):
            here[other].discard(place)
    return found
