"""From a notebook's source to its editions: the learner's, with stubs; the teacher's, solved; nbgrader's; and two that
tests run.

Cells tagged `claim`, which hold the prose to what is measured, stand in the tests' editions alone. Cells tagged
`doubters` are one folded text to a reader; the tests run their code.
"""

import hashlib
import re
from collections.abc import Iterator
from itertools import groupby

import nbformat
from languages import ENGLISH, ROOT, SOURCES, folder, source, spoken
from languages import NOTEBOOKS as NOTEBOOKS  # where the tools look for it
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from rvq_tutorial.language import later, said

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

RUN_TIME = "{{run_time}}"
READING_TIME = "{{reading_time}}"

BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repository}/blob/main/{path})"
)
BOOTSTRAP = """\
# {remark}
import importlib.util, re, subprocess, sys

if importlib.util.find_spec("rvq_tutorial") is None:
    print("{patience}")
    package = "rvq-tutorial[course] @ git+https://github.com/{repository}"
    command = [sys.executable, "-m", "pip", "install", "--no-color", package]
    pip = subprocess.run(command, capture_output=True, text=True)
    if pip.returncode:
        from IPython.core.error import UsageError
        said = [*re.findall(r"(?:fatal|ERROR): .*", pip.stderr), *pip.stderr.splitlines(), "pip was stopped"]
        raise UsageError(f"{failure}")\
"""

SPEAK = """

from rvq_tutorial.course import use

use("{language}")\
"""

SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?### END SOLUTION$", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"^ *### (BEGIN|END) SOLUTION\n?", re.MULTILINE)
NAME = re.compile(r"^def (\w+)", re.MULTILINE)
STUB = later("...  # your code here")
CHECK = re.compile(r"^check\.(\w+)\((\w+)\)$")
# nbgrader takes the test out of what it releases, and puts it back when it grades.
GRADED = """\
{source}
### BEGIN HIDDEN TESTS
check.{name}.grade({answer})
### END HIDDEN TESTS"""
NBGRADER_SCHEMA = 3


class SourceError(ValueError):
    """A source that can't become a notebook; the message names the topic and the fault."""


def topics() -> list[str]:
    """Every topic that has a source, in the order of the course."""
    return sorted(path.stem for path in SOURCES.glob("[0-9][0-9]_*.py"))


def project() -> dict:
    """The table `[project]` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def repository() -> str:
    """Owner and name on GitHub, from the one place where the address stands: `[project.urls]`."""
    return project()["urls"]["Repository"].removeprefix("https://github.com/").rstrip("/")


def learner_edition(topic: str) -> NotebookNode:
    """What a learner opens, not yet executed: stubs, folded hints, and all solutions at the very end.

    There they are out of sight on GitHub, too, which unfolds everything and follows no link: its text names the place.
    """
    notebook = _assembled(topic)
    solutions = _take_solutions_out(topic, notebook.cells)
    sentence = said("One right answer to each exercise. Another may be as good: the check decides.")
    last = f"## {said('Solutions')}\n\n{sentence}"
    notebook.cells = [*_for_readers(notebook.cells), new_markdown_cell(last, id="solutions"), *solutions]
    return notebook


def solved_edition(topic: str) -> NotebookNode:
    """What a teacher opens: the same notebook with every exercise solved; not executed."""
    notebook = _solved(topic)
    notebook.cells = list(_for_readers(notebook.cells))
    return notebook


def assignment_edition(topic: str) -> NotebookNode:
    """What nbgrader makes a release of, with the solutions in it; not executed.

    Exercises are its solution cells, the checks its locked tests, which raise; a test gives a point for each ★.
    """
    notebook = _assembled(topic)
    _open_as_built(topic, notebook)
    for index, cell in enumerate(notebook.cells):
        if tagged(cell, "exercise"):
            _mark_for_nbgrader(topic, notebook.cells, index)
    notebook.cells = list(_for_readers(notebook.cells))
    return notebook


def page_edition(topic: str) -> NotebookNode:
    """What the site shows, where nothing runs: each solution folded under its hint, and no cell that wants a kernel.

    It opens with the times that were measured when the notebook was built; not executed.
    """
    notebook = _assembled(topic)
    _open_as_built(topic, notebook)
    cells = []
    for cell in _for_readers(notebook.cells[:1] + notebook.cells[2:]):  # the second is the bootstrap
        if tagged(cell, "kernel") or cell.source.startswith("check."):
            continue
        cells.append(cell)
        if tagged(cell, "exercise"):
            solution = new_markdown_cell(_folded(said("Solution"), _fenced(_without_markers(cell.source))))
            cell.source = SOLUTION.sub(rf"\1{said(STUB)}", cell.source)
        if tagged(cell, "hint"):
            cells.append(solution)
    notebook.cells = cells
    return notebook


def unsolved_rehearsal(topic: str) -> NotebookNode:
    """For the tests: the learner's cells, with the claims and the doubters' code among them, each run once."""
    notebook = _assembled(topic)
    _take_solutions_out(topic, notebook.cells)
    return notebook


def solved_rehearsal(topic: str) -> NotebookNode:
    """For the tests: the solved cells, with the claims and the doubters' code among them, each run once."""
    return _solved(topic)


def repeated_rehearsal(topic: str) -> NotebookNode:
    """For the longer tests: the cells of the solved rehearsal, each twice in a row, and then all of them once more."""
    notebook = _solved(topic)
    again = [_copy(cell, "again") for cell in notebook.cells]
    once_more = [_copy(cell, "once-more") for cell in notebook.cells]
    notebook.cells = [cell for pair in zip(notebook.cells, again, strict=True) for cell in pair] + once_more
    return notebook


def _take_solutions_out(topic: str, cells: list[NotebookNode]) -> list[NotebookNode]:
    """Put a stub in the place of each solution; give a cell for each solution, with links from the hint and back."""
    solutions = []
    for index, cell in enumerate(cells):
        if not tagged(cell, "exercise"):
            continue
        if not SOLUTION.search(cell.source):
            raise SourceError(f"{topic}: this exercise has no solution between its markers:\n{cell.source}")
        if index + 1 == len(cells) or not tagged(cells[index + 1], "hint"):
            raise SourceError(f"{topic}: no cell tagged 'hint' follows this exercise:\n{cell.source}")
        name, hint = NAME.search(cell.source)[1], cells[index + 1]
        solution = new_markdown_cell(id=f"solution-{name}")
        back = _link(said("Back to the exercise"), hint)
        folded = _folded(said("Solution"), f"{_fenced(_without_markers(cell.source))}\n\n{back}")
        solution.source = f"### {_place(solution)}{name}\n\n{folded}"
        solutions.append(solution)
        where = said("The solution stands at the end of the notebook, under {link}.", link=_link(name, solution))
        hint.source += f"\n\n{where}"
        cell.source = SOLUTION.sub(rf"\1{said(STUB)}", cell.source)
    return solutions


def _solved(topic: str) -> NotebookNode:
    """The notebook with every exercise solved; it opens with the times that were measured when it was built."""
    notebook = _assembled(topic)
    for cell in notebook.cells:
        if tagged(cell, "exercise"):
            cell.source = _without_markers(cell.source)
    _open_as_built(topic, notebook)
    return notebook


def _open_as_built(topic: str, notebook: NotebookNode) -> None:
    """Open with the times that were measured when the notebook was built."""
    built = folder() / f"{topic}.ipynb"
    if not built.exists():
        raise SourceError(f"{topic}: {built.relative_to(ROOT)} is missing; run `make notebooks`.")
    notebook.cells[0].source = nbformat.read(built, as_version=4).cells[0].source


def _mark_for_nbgrader(topic: str, cells: list[NotebookNode], index: int) -> None:
    """Make this exercise a solution cell, and the next check a test of as many points as the exercise has ★."""
    exercise = cells[index]
    heading = next((line for cell in cells[index::-1] for line in _headings(cell)), "")
    test = next((cell for cell in cells[index + 1 : index + 3] if CHECK.match(cell.source)), None)
    if "★" not in heading:
        raise SourceError(f"{topic}: the heading above this exercise has no ★ to count as points:\n{exercise.source}")
    if test is None:
        raise SourceError(f"{topic}: no check follows this exercise and its hint:\n{exercise.source}")
    name, answer = CHECK.match(test.source).groups()
    test.source = GRADED.format(source=test.source, name=name, answer=answer)
    exercise.metadata["nbgrader"] = _nbgrader(name, solution=True)
    test.metadata["nbgrader"] = _nbgrader(f"{name}_test", grade=True, locked=True) | {"points": heading.count("★")}


def _headings(cell: NotebookNode) -> list[str]:
    """The headings of a text, the last one first."""
    lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
    return [line for line in reversed(lines) if line.startswith("#")]


def _nbgrader(grade_id: str, **roles: bool) -> dict:
    """What nbgrader knows of a cell. It finds the cell again by its id, which is the exercise's, whatever its text."""
    return dict.fromkeys(("grade", "locked", "solution", "task"), False) | {
        "grade_id": grade_id,
        "schema_version": NBGRADER_SCHEMA,
        **roles,
    }


def _for_readers(cells: list[NotebookNode]) -> Iterator[NotebookNode]:
    """The cells without the claims; neighbours for doubters become one text, folded under its heading."""
    seen = (cell for cell in cells if not tagged(cell, "claim"))
    for doubted, group in groupby(seen, lambda cell: tagged(cell, "doubters")):
        if not doubted:
            yield from group
            continue
        first, *rest = group
        heading, _, text = first.source.partition("\n")
        texts = [cell.source if cell.cell_type == "markdown" else _fenced(cell.source) for cell in rest]
        folded = _folded(
            said("For doubters: {heading}", heading=heading.lstrip("# ")), "\n\n".join([text.strip(), *texts])
        )
        yield new_markdown_cell(folded, id=first.id, metadata=first.metadata)


def _assembled(topic: str) -> NotebookNode:
    """The source's cells, its hints folded, with the badge and the bootstrap cell."""
    if topic not in topics():
        raise SourceError(f"{topic}: no such source; there are {', '.join(topics()) or 'none'}.")
    notebook = source(topic)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    first, rest = notebook.cells[0], notebook.cells[1:]
    title, _, opening = first.source.partition("\n")
    if first.cell_type != "markdown" or not title.startswith("# "):
        raise SourceError(f"{topic}: the first cell must be markdown and start with '# ', the title.")
    _identify(notebook.cells)
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in ("tags",) if key in cell.metadata}
        if tagged(cell, "hint"):
            cell.source = _folded(f"{_place(cell)}{said('Hint')}", cell.source)
    badge = BADGE.format(repository=repository(), path=(folder() / f"{topic}.ipynb").relative_to(ROOT).as_posix())
    first.source = f"{title}\n\n{badge}\n\n{opening.lstrip()}".rstrip()
    notebook.cells = [first, new_code_cell(_bootstrap(), id="bootstrap"), *rest]
    return notebook


def _bootstrap() -> str:
    """The code of the first cell: it installs the package where it is missing, and chooses the notebook's language."""
    install = BOOTSTRAP.format(
        repository=repository(),
        remark=said("Where the course's package is missing, as on Colab, this installs it."),
        patience=said("Installing the course's package: give it a minute; no restart is needed afterwards."),
        failure=said(
            "Installing takes a network, git and a public repository, and failed: {reason}", reason="{said[0]}"
        ),
    )
    return install if spoken() == ENGLISH else install + SPEAK.format(language=spoken())


def tagged(cell: NotebookNode, tag: str) -> bool:
    """Whether the cell carries the tag."""
    return tag in cell.metadata.get("tags", [])


def _without_markers(source: str) -> str:
    return MARKER.sub("", source).rstrip()


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def _copy(cell: NotebookNode, name: str) -> NotebookNode:
    return NotebookNode(cell | {"id": f"{cell.id}-{name}"})


def _folded(summary: str, text: str) -> str:
    # Without the blank lines the text inside would not be read as markdown.
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def _link(text: str, cell: NotebookNode) -> str:
    """A link to the cell, which has a `_place` in it. Colab follows no other than #scrollTo=<the cell's id>."""
    return f"[{text}](#scrollTo={cell.id})"


def _place(cell: NotebookNode) -> str:
    """What a link to the cell leads to: for Jupyter and nbviewer, and for VS Code, which lowers links as headings."""
    return f'<a id="scrollTo={cell.id}"></a><a id="scrollto{cell.id.lower()}"></a>'


def _identify(cells: list[NotebookNode]) -> None:
    """Give ids made from the text: building twice gives the same ones, and an edit changes one."""
    seen = set()
    for cell in cells:
        digest = hashlib.sha256(cell.source.encode()).hexdigest()
        cell.id = next(part for n in range(len(digest)) if (part := digest[n : n + 8]) not in seen)
        seen.add(cell.id)
