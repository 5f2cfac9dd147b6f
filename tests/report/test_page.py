"""The summary as one page."""

import base64
import re

import pytest

from offramp.report.page import as_page

PICTURE = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
MARKDOWN = """# Summary: <b>net</b> on a&b

**Warning: disturbed.** Measure again.

**Use it.** It is 91.05% [90.47, 91.60] right.

## Task 1a: a table

> A question?

| exit | accuracy | time | name |
| --- | --- | --- | --- |
| 1 | 91.05% [90.47, 91.60] | 0.0524 s | 3 cats |
| all | nobody | 1,000 | `x` |

![what](figures/what.svg)
*What is seen.*

## The proof

More.
"""


@pytest.fixture
def page(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/what.svg").write_bytes(PICTURE)
    return as_page(MARKDOWN, tmp_path, {"Explore": "explorer.html"})


def test_pictures_lie_inside_and_nothing_is_fetched(page):
    assert re.findall(r'<img src="([^"]+)"', page) == [
        "data:image/svg+xml;base64," + base64.b64encode(PICTURE).decode()
    ]
    assert re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page) == ["explorer.html"]
    assert not re.search(r"https?://|@import|url\(", page)


def test_names_are_text_and_never_tags(page):
    assert "<b>net" not in page
    assert "<title>Summary: &lt;b&gt;net&lt;/b&gt; on a&amp;b</title>" in page


def test_every_section_is_reached_from_the_contents(page):
    links = re.findall(r'<a href="#([^"]+)">([^<]+)</a>', page)
    assert links == [("task-1a-a-table", "Task 1a"), ("the-proof", "The proof")]
    assert all(f'<section id="{anchor}">' in page for anchor, _ in links)
    answer = re.search(r'<section class="answer">(.*?)</section>', page, re.DOTALL)[1]
    assert "Use it." in answer and "Task 1a" not in answer


def test_numbers_pictures_and_warnings_are_marked_for_the_style(page):
    numbers = re.findall(r'<t[hd] class="number">(.*?)</t[hd]>', page)
    assert [re.sub("<.*?>", "", n) for n in numbers] == [
        *("exit", "accuracy", "time"), *("1", "91.05% [90.47, 91.60]", "0.0524 s"),
        *("all", "nobody", "1,000"),
    ]  # fmt: skip
    assert '<p class="warning"><strong>Warning' in page
    assert '<p class="figure"><img' in page
    assert '<span class="interval">[90.47, 91.60]</span> right' in page
