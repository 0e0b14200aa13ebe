"""The site builds without a warning, loads nothing over the network, and shows every part of a docstring."""

import importlib
import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from tools.docstrings import PARTS, as_markdown
from tools.pages import PACKAGES, ROOT

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src", "use": "href"}
FROM_ELSEWHERE = re.compile(r"(https?:)?//")


class Loaded(HTMLParser):
    """What a page makes a browser load from elsewhere."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        address = dict(attrs).get(LOADED.get(tag, ""), "") or ""
        if FROM_ELSEWHERE.match(address):
            self.found.append(address)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_nothing_is_loaded_over_the_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assert {page.name: found for page in pages if (found := Loaded(page.read_text()).found)} == {}
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text()), style.name
    assert Loaded('<link href="https://fonts.example/a.css">').found == ["https://fonts.example/a.css"]
    assert Loaded('<a href="https://example.com">').found == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_every_public_function_and_class(site, package):
    names = re.findall(r"^::: (\S+)$", (ROOT / f"docs/reference/{package.rpartition('.')[2]}.md").read_text(), re.MULTILINE)
    html = (site / f"reference/{package.rpartition('.')[2]}.html").read_text()
    assert names
    for name in names:
        assert f'id="{name}"' in html, name


DOCSTRING = """Do it.

    y = x[0]

A list [*p] and a `[code]`.

Args:
    x: a number [],
        or two.
    y, z: others.
Shapes: [n] each.  Dtypes: float32,
    float64.
Raises: ValueError where x < 0.
Example:
    >>> do(1)
    2
"""

MARKDOWN = r"""Do it.

    y = x[0]

A list \[*p] and a `[code]`.

**Args:**

- `x`: a number \[], or two.
- `y, z`: others.

**Shapes:** \[n] each.

**Dtypes:** float32, float64.

**Raises:** ValueError where x < 0.

**Example:**

```pycon
>>> do(1)
2
```"""


def test_the_parts_of_a_docstring_become_markdown():
    assert as_markdown(DOCSTRING) == MARKDOWN
    assert as_markdown("One line.") == "One line."


@pytest.mark.parametrize("package", PACKAGES)
def test_no_part_of_a_docstring_is_unknown(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        _, _, after_the_first_line = (inspect.getdoc(getattr(module, name)) or "").partition("\n")
        parts = re.findall(r"(?:^|  )([A-Z][a-z]+|Differs from):(?: |$)", after_the_first_line, re.MULTILINE)
        assert set(parts) <= set(PARTS), name
