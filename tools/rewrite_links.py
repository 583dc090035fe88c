"""Make the pages say what stands elsewhere: the repository's address, and the minutes that each notebook takes.

    python tools/rewrite_links.py

For whoever moves or forks the course: change `[project.urls]`, then run this. The links in the notebooks follow too.
"""

import re

import nbformat
import reading
from editions import NOTEBOOKS, ROOT, repository

README = ROOT / "README.md"
TRANSLATED = sorted(ROOT.glob("README.*.md"))  # the README in other languages
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BUILT = [path for folder in ("", "[a-z][a-z]/") for path in sorted(NOTEBOOKS.glob(f"{folder}*.ipynb"))]
WITH_LINKS = [*PAGES, *TRANSLATED, ROOT / "CITATION.cff", *BUILT]

LINK = re.compile(
    r"(colab\.research\.google\.com/github/|mybinder\.org/v2/gh/"
    r"|(?:git\+|git clone |repo=|repository-code: )https://github\.com/)"
    r"[\w.-]+/[\w.-]+"
)


def rewritten(text: str) -> str:
    """The text with every Colab, Binder, clone and install link leading to our repository."""
    return LINK.sub(rf"\g<1>{repository()}", text)


def timed(text: str) -> str:
    """A README's text with each notebook's minutes in its row: to read, and to solve the exercises.

    They are those of the English notebook, whatever the language: it has the same paragraphs, pictures and exercises.
    """
    for path in NOTEBOOKS.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        minutes = f"{round(reading.minutes(notebook))} + {reading.exercise_minutes(notebook)}"
        row = rf"(\(notebooks/(?:[a-z][a-z]/)?{path.name}\).*\| )\d+ \+ \d+( \|)"
        text = re.sub(row, rf"\g<1>{minutes}\2", text)
    return text


def main() -> None:
    """Rewrite the files in place."""
    for path in WITH_LINKS:
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
    for readme in (README, *TRANSLATED):
        readme.write_text(timed(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
