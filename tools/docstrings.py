"""How mkdocstrings reads our docstrings: each part ("Args:", "Shapes:", ...) becomes a paragraph, a list or a block of code."""

import re
from typing import Any

import griffe

PARTS = (
    *("Args", "Attributes", "Shapes", "Dtypes", "State", "Returns", "Raises", "Exactness", "Differs from", "Costs", "Source"),
    "Example",
)
_PART = re.compile(rf"(?:^|(?<=  ))({'|'.join(PARTS)}):[ \n]", re.MULTILINE)
_ITEM = re.compile(r"^    (?=\S)", re.MULTILINE)
_CODE_OR_BRACKET = re.compile(r"^    .*$|`[^`]*`|\[", re.MULTILINE)
_NAME = re.compile(r"^([\w, *]+):", re.MULTILINE)


class PartsAsMarkdown(griffe.Extension):
    """The hook that griffe calls for each object that it reads."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring, if there is one."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """The docstring as Markdown: what comes before the first part as it is, then the parts."""
    before, *parts = _PART.split(docstring)
    named = zip(parts[::2], parts[1::2], strict=True)
    return "\n\n".join([_escaped(before.strip("\n")), *(_part(name, text) for name, text in named)])


def _part(name: str, text: str) -> str:
    if name == "Example":
        return f"**Example:**\n\n```pycon\n{_dedented(text)}\n```"
    if name in ("Args", "Attributes") and text.startswith("    "):
        items = (" ".join(item.split()) for item in _ITEM.split(text) if item.strip())
        return f"**{name}:**\n\n" + "\n".join(f"- {_escaped(_NAME.sub(_code, item))}" for item in items)
    return f"**{name}:** {_escaped(' '.join(text.split()))}"


def _escaped(text: str) -> str:
    """With [ as it is, not as the beginning of a link; in code it is that already."""
    return _CODE_OR_BRACKET.sub(lambda found: "\\[" if found[0] == "[" else found[0], text)


def _code(name: re.Match) -> str:
    return f"`{name[1]}`:"


def _dedented(text: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in text.strip("\n").splitlines()).strip()
