"""Make the links of README.md and the notebooks lead to the repository that pyproject.toml names.

    python tools/rewrite_links.py

For whoever moves or forks the course: change `[project.urls]`, then run this.
"""

import re

from editions import NOTEBOOKS, ROOT, repository

LINK = re.compile(
    r"(colab\.research\.google\.com/github/|mybinder\.org/v2/gh/|git\+https://github\.com/|git clone https://github\.com/)"
    r"[\w.-]+/[\w.-]+"
)


def rewritten(text: str) -> str:
    """The text with every Colab, Binder, clone and install link leading to our repository."""
    return LINK.sub(rf"\g<1>{repository()}", text)


def main() -> None:
    """Rewrite the files in place."""
    for path in (ROOT / "README.md", *NOTEBOOKS.glob("*.ipynb")):
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
