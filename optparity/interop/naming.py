"""Names of JAX leaves and of torch parameters that mean the same: equal, equal after a prefix, or after documented translations.

    equal          layers.0.weight         layers.0.weight
    a prefix       params.layers.0.weight  module.layers.0.weight
    translated     layers_0.kernel         layers.0.weight            kernel, scale and embedding are torch's weight
    numbered       Dense_0.kernel          0.weight                   the word before a number

Each way is taken only if it gives every leaf one parameter, and every parameter one leaf.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

TRANSLATED = {"kernel": "weight", "scale": "weight", "embedding": "weight", "mean": "running_mean", "var": "running_var"}
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # torch.compile's, FSDP's

Tokens = tuple[str, ...]


def matched(paths: Sequence[str], names: Sequence[str]) -> tuple[dict[str, str], str] | None:
    """The name of each path, and by which way; None where no way gives all of them."""
    for way, spelling in WAYS.items():
        if found := _one_to_one(spelling, paths, names):
            if way == "numbered" and not _consistent(found):
                return None
            return found, way
    return None


def alike(a: str, b: str) -> bool:
    """Whether two names mean the same by translation."""
    return _translated(_tokens(a)) == _translated(_tokens(b))


def _one_to_one(spelling: Callable[[Tokens], Tokens], paths: Sequence[str], names: Sequence[str]) -> dict[str, str] | None:
    here, there = (_by_spelling(spelling, each) for each in (paths, names))
    if len(here) < len(paths) or len(there) < len(names) or here.keys() != there.keys():
        return None
    return {path: there[spelled] for spelled, path in here.items()}


def _by_spelling(spelling: Callable[[Tokens], Tokens], names: Sequence[str]) -> dict[Tokens, str]:
    spelled = _without_prefix([spelling(_tokens(name)) for name in names]) if spelling is not _same else map(_tokens, names)
    return dict(zip(spelled, names, strict=True))


def _without_prefix(spelled: Sequence[Tokens]) -> list[Tokens]:
    """Without what all have in common at the beginning; a name keeps its last part."""
    heads = [tokens[:-1] for tokens in spelled]
    common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*heads, strict=False)))
    return [tokens[common:] for tokens in spelled]


def _tokens(name: str) -> Tokens:
    return tuple(name.split("."))


def _same(tokens: Tokens) -> Tokens:
    return tokens


def _prefixed(tokens: Tokens) -> Tokens:
    return tuple(token for token in tokens if token not in WRAPPERS)


def _translated(tokens: Tokens) -> Tokens:
    *path, last = _prefixed(tokens)
    return (*(part for token in path for part in _split(token)), TRANSLATED.get(last, last))


def _split(token: str) -> Tokens:
    """`Dense_10` as `Dense`, `10`."""
    word, _, number = token.rpartition("_")
    return (word, number) if word and number.isdecimal() else (token,)


def _numbered(tokens: Tokens) -> Tokens:
    """Without the words before numbers."""
    translated = _translated(tokens)
    return tuple(token for i, token in enumerate(translated) if not _is_word(translated, i))


def _is_word(tokens: Tokens, i: int) -> bool:
    return not tokens[i].isdecimal() and i + 1 < len(tokens) and tokens[i + 1].isdecimal()


def _consistent(found: dict[str, str]) -> bool:
    """Whether the words before numbers translate one to one: `Dense_0` and `Conv_1` are not 0 and 1 of one torch list."""
    pairs = {pair for path, name in found.items() for pair in zip(_words(path), _words(name), strict=False)}
    here, there = {a for a, _ in pairs}, {b for _, b in pairs}
    same = {word for _, word in here} & {word for _, word in there} - {""}
    return len(here) == len(there) == len(pairs) and all((a[1] == b[1]) for a, b in pairs if {a[1], b[1]} & same)


def _words(name: str) -> Iterable[tuple[Tokens, str]]:
    """Of each number, the last one first, where it stands (other numbers as #) and the word before it, or nothing."""
    tokens = _translated(_tokens(name))
    for i, token in reversed(list(enumerate(tokens))):
        if token.isdecimal():
            before = tuple("#" if each.isdecimal() else each for j, each in enumerate(tokens[:i]) if not _is_word(tokens, j))
            yield before, tokens[i - 1] if i and _is_word(tokens, i - 1) else ""


WAYS: dict[str, Callable[[Tokens], Tokens]] = {"equal": _same, "a prefix": _prefixed, "translated": _translated, "numbered": _numbered}
