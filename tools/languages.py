"""The languages of the notebooks, and the one that they are built in at the moment.

Within `speaking("zh")` the editions of a source are Chinese; everywhere else they are English, as the source is.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jupytext
import po
import texts
from nbformat import NotebookNode

from rvq_tutorial import language as package

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
SOURCES = NOTEBOOKS / "sources"
ENGLISH = "en"
# In which the notebooks are built. Another one is its catalogues, complete, and its name here.
LANGUAGES = (ENGLISH, "zh")
COMMON = "common"  # the catalogue of what several notebooks say

_spoken = ENGLISH


@contextlib.contextmanager
def speaking(language: str) -> Iterator[None]:
    """Within it, editions are in this language."""
    global _spoken
    before, _spoken = _spoken, language
    package.speak(_words(COMMON))
    try:
        yield
    finally:
        _spoken = before
        package.speak({} if before == ENGLISH else _words(COMMON))


def spoken() -> str:
    """The language of the editions at the moment."""
    return _spoken


def folder() -> Path:
    """Where the notebooks of this language lie."""
    return NOTEBOOKS if _spoken == ENGLISH else NOTEBOOKS / _spoken


def source(topic: str) -> NotebookNode:
    """The source of a notebook, in this language; what isn't translated stays English."""
    notebook = jupytext.read(SOURCES / f"{topic}.py")
    words = _words(topic, COMMON)
    for cell in notebook.cells:
        cell.source = texts.translated(cell, lambda text, kind: words.get(text))
    return notebook


def _words(*names: str) -> dict[str, str]:
    return {} if _spoken == ENGLISH else po.words(*(SOURCES / _spoken / f"{name}.po" for name in names))
