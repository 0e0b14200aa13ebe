"""The pages are written in short sentences, and the measure counts as it says."""

import pytest

from tools import prose


@pytest.mark.parametrize("page", prose.pages(), ids=lambda page: str(page.relative_to(prose.ROOT)))
def test_sentences_are_short(page):
    found = prose.passed(prose.measure(page.read_text()), prose.limits(page))
    assert not found, f"{page.name}: {'; '.join(found)}"


TEXT = """\
# A heading is left out

One two `three four` [five](https://example.com/six.html)! Is 1,000.5 a number? "It is." (Yes.) So: yes; it is.

| a table | is left out |
|---|---|
| a | b |

- An item
  goes on
- without a full stop

```python
code = "is left out. It is."
```

<!-- a comment. It is left out. -->

![A picture is left out.](picture.svg)

::: a.name

--8<-- "a file"
"""


def test_words_and_sentences_are_counted_as_it_says():
    assert prose.measure(TEXT).lengths == (5, 4, 2, 1, 4, 4, 4)


def test_each_limit_can_be_passed():
    measured = prose.measure(f"{'word ' * 40}. One two. ")
    assert measured.words == 42
    assert measured.longest.startswith("word word")
    assert prose.passed(measured, prose.Limits(mean=21, longest=40, words=42)) == []
    messages = prose.passed(measured, prose.Limits(mean=20.9, longest=39, words=41))
    assert [message.split(";")[0] for message in messages] == [
        "a sentence has 21.0 words on average",
        "the longest sentence has 40 words",
        "42 words",
    ]


def test_readme_has_limits_of_its_own():
    assert prose.limits(prose.ROOT / "README.md") == prose.Limits(mean=16, longest=35, words=950)
    assert prose.limits(prose.ROOT / "docs" / "drift.md") == prose.Limits(mean=18)


def test_an_empty_page_has_no_sentence():
    assert prose.measure("# Only a heading").mean == 0
    assert prose.passed(prose.measure(""), prose.README) == []
