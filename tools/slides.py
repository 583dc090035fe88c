"""Slides of the notebooks as they are built, for a class: few words, large pictures. Each file holds all that it shows.

python tools/slides.py DIR                   the slides of every notebook
python tools/slides.py DIR 04_residual_vq    of one

A slide is the opening question; a picture, between the sentence that leads to it and, one key later, the one that
follows; a formula; an exercise's task; a bug to be found, with its code and, one key later, what it prints; and the
first sentence of each thing that was seen in the end.
"""

import argparse
import re
from collections.abc import Iterator
from importlib.metadata import distribution
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import nbformat
from editions import topics
from languages import NOTEBOOKS
from mathml import mathml
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from reading import FOLDED

TEMPLATES = Path(__file__).with_name("templates")
# The Python package that brings reveal.js; nothing else of it is used.
REVEAL = Path(str(distribution("sphinx-revealjs").locate_file("sphinx_revealjs/_static/revealjs/dist")))

PICTURE = re.compile(r'<img alt="([^"]*)" width="(\d+)" height="(\d+)"[^>]* src="(data:[^"]+)"')
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
SENTENCE = re.compile(r"(?:(?<=[.?!])(?<!\bal\.)|(?<=[.?!]\*\*))\s+(?=[^\W\d_]|[*`(\d‖])")
BY_HAND = re.compile(r"\bslider\b|\b[Rr]un the cell", re.IGNORECASE)  # said to those who have a kernel
LETTERS = 240  # of the sentences above a picture, and below it
LAST = "## Self-test"


class Slide(NamedTuple):
    """What a slide shows, in markdown; `then` comes one key later."""

    heading: str
    text: str
    shown: str = ""
    then: str = ""


def slides(notebook: NotebookNode) -> Iterator[Slide]:
    """The slides of a notebook with its outputs."""
    blocks = list(_blocks(notebook))
    section = heading = text = ""
    for index, block in enumerate(blocks):
        following = blocks[index + 1] if index + 1 < len(blocks) else ""
        if not isinstance(block, str):
            if block.source.startswith("check."):
                heading, text = section, ""
            elif picture := _picture(block):
                yield Slide(heading, _end(text), picture, _start(following))
                text = ""
        elif block == LAST:
            return
        elif block.startswith("#"):
            section = block if block.startswith("## ") else section
            heading, text = block, ""
            if block.startswith(("### Exercise", "### What is wrong")):
                yield _task(block, blocks[index + 1 :])
        elif block.startswith("$$"):
            yield Slide(heading, _end(text), block)
        elif block.startswith("**The question.**"):
            yield Slide(heading, block)
        elif heading == "## What we saw" and block.startswith("- "):
            yield Slide(heading, "\n".join(_sentences(point)[0] for point in block.splitlines()))
        else:
            text = block


def _blocks(notebook: NotebookNode) -> Iterator[str | NotebookNode]:
    """The headings and paragraphs of a notebook, without what is folded, and its cells of code."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            yield cell
        else:
            yield from re.split(r"\n{2,}", FOLDED.sub("", cell.source).strip())


def _task(heading: str, blocks: list[str | NotebookNode]) -> Slide:
    """What learners are asked; of a bug also its code, and then what it prints."""
    first, *rest = (list(group) for _, group in groupby(blocks, lambda block: isinstance(block, str)))
    text = "\n\n".join(first)
    if heading.startswith("### Exercise"):
        return Slide(heading, text)
    code = "\n".join(cell.source for cell in rest[0])
    printed = "".join(output.get("text", "") for cell in rest[0] for output in cell.outputs)
    return Slide(heading, _end(text), _fenced("python", code), _fenced("text", printed) if printed else "")


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _picture(cell: NotebookNode) -> str:
    """The first picture that a cell shows, without its caption; or nothing."""
    for output in cell.outputs:
        if found := PICTURE.search(output.get("data", {}).get("text/html", "")):
            alt, width, height, source = found.groups()
            shape = "picture tall" if int(height) > 0.8 * int(width) else "picture"
            return f'<div class="{shape}"><img alt="{alt}" src="{source}"></div>'
    return ""


def _sentences(text: str) -> list[str]:
    """The sentences of a paragraph."""
    found = [""]
    for piece in SENTENCE.split(text):
        whole = found[-1].count("(") == found[-1].count(")")
        found = [*found, piece] if whole else [*found[:-1], f"{found[-1]} {piece}"]
    return found[1:]


def _end(text: str) -> str:
    """As many of a text's last sentences as there is room for."""
    return " ".join(_fitting(_sentences(text)[::-1])[::-1])


def _start(block: str | NotebookNode) -> str:
    """As many of the first sentences as there is room for; none of no paragraph, or that leads elsewhere."""
    if not isinstance(block, str) or block.startswith(("#", "$$")):
        return ""
    sentences = _sentences(block.partition("\n")[0].removeprefix("- "))
    return " ".join(_fitting([sentence for sentence in sentences if not sentence.endswith(":")]))


def _fitting(sentences: list[str]) -> list[str]:
    """The first of the sentences, as many as there is room for, without those that only a kernel makes true."""
    kept: list[str] = []
    for sentence in sentences:
        if kept and len(sentence) + sum(map(len, kept)) > LETTERS:
            break
        if not BY_HAND.search(sentence):
            kept.append(sentence)
    return kept


def _cells(slide: Slide) -> Iterator[NotebookNode]:
    text = FORMULA.sub(_mathml, f"#{slide.heading.lstrip('#')}\n\n{slide.text}")
    shown = FORMULA.sub(_mathml, slide.shown) if slide.shown.startswith("$$") else slide.shown
    yield new_markdown_cell(f"{text}\n\n{shown}", metadata={"slideshow": {"slide_type": "slide"}})
    if slide.then:
        then = slide.then if slide.then.startswith(("```", "<div")) else FORMULA.sub(_mathml, slide.then)
        yield new_markdown_cell(then, metadata={"slideshow": {"slide_type": "fragment"}})


def _mathml(formula: re.Match[str]) -> str:
    block, inline = formula.groups()
    return mathml(block or inline, block=bool(block))


def page(topic: str) -> str:
    """The slides of a topic's notebook as one page of HTML, with pictures, styles and script in it."""
    notebook = nbformat.read(NOTEBOOKS / f"{topic}.ipynb", as_version=4)
    cells = [cell for slide in slides(notebook) for cell in _cells(slide)]
    exporter = SlidesExporter(template_name="slides", extra_template_basedirs=[str(TEMPLATES)])
    files = {name: (REVEAL / name).read_text(encoding="utf-8") for name in ("reveal.css", "reveal.js")}
    title = cells[0].source.partition("\n")[0].lstrip("# ")
    html, _ = exporter.from_notebook_node(new_notebook(cells=cells, metadata={"title": title}), {"reveal_files": files})
    return html


def main() -> None:
    """Write the slides that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the pages are written")
    parser.add_argument("topics", nargs="*", metavar="NN_topic", help="which notebooks; all if none is named")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for topic in arguments.topics or topics():
        (arguments.folder / f"{topic}.html").write_text(page(topic), encoding="utf-8")


if __name__ == "__main__":
    main()
