"""How long the sentences of the documentation are: `python -m tools.prose` measures each page, exit 1 where a limit is passed.

What is read: paragraphs and list items, as a Markdown parser finds them. What is left out: headings, tables, blocks of code, HTML,
pictures, and the lines `::: name` and `--8<--` that mkdocs fills in.

A word is what stands between spaces and has a letter or a digit: `optparity check adagrad` is three, `float32` one, and so is `1,000`.
A link counts with its text, not with its address. A sentence ends at the end of its paragraph or list item, and at `.`, `!` or `?`
before a space (a closing bracket or quotation mark may come between). A colon or a semicolon ends none, nor does a full stop within a
number, a name or code.
"""

import itertools
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
LEFT_OUT = re.compile(r"^(:::|--8<--)")
END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][)\"”]))\s+")
NON_SPACES = re.compile(r"\S*\w\S*")


@dataclass(frozen=True)
class Prose:
    """The sentences of a page, each as its number of words."""

    lengths: tuple[int, ...]
    longest: str

    @property
    def words(self) -> int:
        return sum(self.lengths)

    @property
    def mean(self) -> float:
        return self.words / len(self.lengths) if self.lengths else 0.0


@dataclass(frozen=True)
class Limits:
    """What a page may have."""

    mean: float
    longest: int | None = None
    words: int | None = None


README, PAGE = Limits(mean=16, longest=35, words=950), Limits(mean=18)


def limits(page: Path) -> Limits:
    return README if page.name == "README.md" else PAGE


def pages() -> list[Path]:
    """README and every page of docs/, whether written by hand or generated, and what they include."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def measure(text: str) -> Prose:
    """The prose of a Markdown text."""
    sentences = [sentence for paragraph in paragraphs(text) for sentence in _sentences(paragraph)]
    lengths = tuple(len(NON_SPACES.findall(sentence)) for sentence in sentences)
    return Prose(lengths, max(sentences, key=lambda sentence: len(NON_SPACES.findall(sentence)), default=""))


def paragraphs(text: str) -> list[str]:
    """Paragraphs and list items as plain text."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    found = []
    for before, token in itertools.pairwise(tokens):
        if before.type == "paragraph_open" and not LEFT_OUT.match(token.content):
            children = (child for child in token.children or [] if child.type in ("text", "code_inline", "softbreak", "hardbreak"))
            found.append("".join(" " if child.type.endswith("break") else child.content for child in children))
    return found


def _sentences(paragraph: str) -> list[str]:
    return [sentence for sentence in END.split(paragraph) if NON_SPACES.search(sentence)]


def passed(prose: Prose, limits: Limits) -> list[str]:
    """What is over a limit, in words."""
    found = []
    if prose.mean > limits.mean:
        found.append(f"a sentence has {prose.mean:.1f} words on average; at most {limits.mean:g}")
    if limits.longest is not None and max(prose.lengths, default=0) > limits.longest:
        found.append(f"the longest sentence has {max(prose.lengths)} words; at most {limits.longest}: {prose.longest}")
    if limits.words is not None and prose.words > limits.words:
        found.append(f"{prose.words} words; at most {limits.words}")
    return found


def main() -> int:
    """A line for each page, and what is over a limit."""
    over = 0
    print(f"{'page':32s}{'words':>7s}{'mean':>7s}{'longest':>9s}")
    for page in pages():
        prose = measure(page.read_text())
        found = passed(prose, limits(page))
        over += len(found)
        print(f"{page.relative_to(ROOT)!s:32s}{prose.words:7d}{prose.mean:7.1f}{max(prose.lengths, default=0):9d}", *found, sep="  ")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
