"""What a screen reader finds in the committed pages: headings that make a table of contents, pictures with words."""

import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
PAGES = [*NOTEBOOKS, *sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])]


def named(path):
    return str(path.relative_to(ROOT))


def markdown(page):
    """The page's prose, a string for each cell."""
    if page.suffix == ".md":
        return [page.read_text()]
    return [cell.source for cell in nbformat.read(page, 4).cells if cell.cell_type == "markdown"]


def levels_of(cells):
    """Of each heading its level: 1 for #; HTML's own too, and those in folded blocks."""
    tokens = [token for cell in cells for token in MarkdownIt().parse(cell)]
    return [
        int(level)
        for token in tokens
        for level in ([token.tag[1]] if token.type == "heading_open" else re.findall(r"<h([1-6])", html_of(token)))
    ]


def html_of(token):
    return token.content if token.type in ("html_block", "inline") else ""


def test_headings_are_found_wherever_they_stand():
    cells = [
        "# One\n\n```python\n# a comment\n```",
        "Two\n---\n\n<details>\n\n#### Four\n\n</details>",
        "<h5>Five</h5>",
    ]
    assert levels_of(cells) == [1, 2, 4, 5]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_headings_are_in_order(page):
    """One title, and no level is skipped on the way down."""
    levels = levels_of(markdown(page))
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(lower <= upper + 1 for upper, lower in pairwise(levels)), levels


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_picture_is_described(page):
    pieces = [MarkdownIt().render(cell) for cell in markdown(page)]
    if page.suffix == ".ipynb":
        outputs = [output for cell in nbformat.read(page, 4).cells for output in cell.get("outputs", [])]
        pieces += [output.get("data", {}).get("text/html", "") for output in outputs]
        assert not [output for output in outputs if any(kind.startswith("image/") for kind in output.get("data", {}))]
    images = [image for piece in pieces for image in re.findall(r"<img[^>]*?(?:alt=\"[^\"]*\"[^>]*)?>", piece)]
    assert [image[:200] for image in images if not re.search(r'alt="[^"]+"', image)] == []
