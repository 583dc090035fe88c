"""The course as nbgrader's assignments: nbgrader itself releases and grades them, and no release holds a solution."""

import ast
import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, combinations
from pathlib import Path

import nbformat
import pytest
from editions import SOLUTION, STUB, assignment_edition, tagged, topics
from languages import ROOT
from nbformat import NotebookNode

RELEASE_ALL = """
import sys
from nbgrader.apps import NbGrader, NbGraderAPI
settings = NbGrader()
settings.load_config_file()
for topic in sys.argv[1:]:
    done = NbGraderAPI(config=settings.config).generate_assignment(topic)
    assert done["success"], done["log"]
"""
MARKER = re.compile(r"^ *### (?:BEGIN|END) SOLUTION\n", re.MULTILINE)


class Classroom:
    """A course of nbgrader's, in a folder of its own, as `make assignments` writes it."""

    def __init__(self, folder: Path, *named: str) -> None:
        self.folder = folder
        self.run(ROOT / "tools" / "build_notebooks.py", "--assignments", folder, *named, at=ROOT)

    def run(self, *arguments: str | Path, at: Path | None = None) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        environment |= {"PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(self.folder / "config")}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=at or self.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"

    def released(self, topic: str) -> NotebookNode:
        return nbformat.read(self.folder / "release" / topic / f"{topic}.ipynb", as_version=4)

    def scores(self, topic: str, handed_in: dict[str, NotebookNode]) -> dict[str, tuple[float, float]]:
        """The score that nbgrader gives to each learner's notebook, and the highest there is."""
        for learner, notebook in handed_in.items():
            path = self.folder / "submitted" / learner / topic / f"{topic}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, path)
        self.run("-m", "nbgrader", "autograde", topic, "--create", "--force")
        self.run("-m", "nbgrader", "export", "--to=grades.csv")
        with (self.folder / "grades.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["assignment"] == topic]
        return {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in rows}


def points(notebook: NotebookNode) -> dict[str, int]:
    """What each exercise is worth, by its name."""
    marks = (cell.metadata.get("nbgrader", {}) for cell in notebook.cells)
    return {mark.grade_id.removesuffix("_test"): mark.points for mark in marks if mark.get("grade")}


def about_half(worth: dict[str, int]) -> set[str]:
    """The exercises that together are worth as near to half of all as can be."""
    some = chain.from_iterable(combinations(worth, size) for size in range(len(worth)))
    return set(min(some, key=lambda names: abs(2 * sum(worth[name] for name in names) - sum(worth.values()))))


def answered(classroom: Classroom, topic: str, names: set[str]) -> NotebookNode:
    """The released notebook with these exercises solved, as a learner would hand it in."""
    notebook = classroom.released(topic)
    solved = {name: MARKER.sub("", exercise.source) for name, exercise in exercises(topic)}
    for cell in notebook.cells:
        if (name := cell.metadata.get("nbgrader", {}).get("grade_id")) in names:
            cell.source = solved[name]
    return notebook


def exercises(topic: str) -> Iterator[tuple[str, NotebookNode]]:
    """The exercises of a topic, each by its name, with their solutions between the markers."""
    for cell in assignment_edition(topic).cells:
        if tagged(cell, "exercise"):
            yield cell.metadata.nbgrader.grade_id, cell


@pytest.fixture(scope="module")
def classroom(tmp_path_factory: pytest.TempPathFactory) -> Classroom:
    """A course of all topics, all of them released."""
    classroom = Classroom(tmp_path_factory.mktemp("classroom"))
    classroom.run("-c", RELEASE_ALL, *topics())
    return classroom


@pytest.mark.parametrize("topic", topics())
def test_no_release_holds_a_solution(topic: str, classroom: Classroom) -> None:
    release = classroom.released(topic)
    text = "\n".join(cell.source for cell in release.cells)
    assert not any(cell.get("outputs") or cell.get("attachments") for cell in release.cells)
    assert not re.search(r"SOLUTION|HIDDEN|\.grade\(", text)
    for name, exercise in exercises(topic):
        (solution,) = (match[0] for match in SOLUTION.finditer(exercise.source))
        body = " ".join(MARKER.sub("", solution.replace("### END SOLUTION", "")).split())
        assert body not in " ".join(text.split()), f"{name}: its solution stands in the release"
        assert len(re.findall(rf"def {name}\(", text)) == 1, f"{name} is defined more than once"
        (cell,) = (cell for cell in release.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == name)
        assert cell.source.endswith(STUB)
        ast.parse(cell.source)


@pytest.mark.parametrize("topic", topics())
def test_a_release_has_the_stars_for_points_and_hints_and_ids_that_last(topic: str, classroom: Classroom) -> None:
    release = classroom.released(topic)
    names = [name for name, _ in exercises(topic)]
    assert list(points(release)) == names
    headings = re.findall(r"^### Exercise.*", "\n".join(cell.source for cell in release.cells), re.MULTILINE)
    assert list(points(release).values()) == [heading.count("★") for heading in headings]
    for name in names:
        (place,) = (i for i, cell in enumerate(release.cells) if cell.source.startswith(f"check.{name}("))
        assert release.cells[place].source == f"check.{name}({name})"
        assert release.cells[place].metadata.nbgrader.locked
        hint = release.cells[place - 1].source
        assert "Hint</summary>" in hint and hint.count("<details") == 1


def in_short(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what lies between its exercises: the imports, the exercises and the checks."""
    notebook.cells = [notebook.cells[2], *(cell for cell in notebook.cells if "nbgrader" in cell.metadata)]
    return notebook


def slyly(notebook: NotebookNode) -> NotebookNode:
    """The notebook with its tests emptied, as nobody should be able to."""
    for cell in notebook.cells:
        if cell.source.startswith("check."):
            cell.source = "pass"
    return notebook


def test_nbgrader_gives_full_half_and_no_points_whatever_becomes_of_the_tests(classroom: Classroom) -> None:
    topic = "04_residual_vq"
    worth = points(classroom.released(topic))
    handed_in = {
        "solved": in_short(answered(classroom, topic, set(worth))),
        "half": slyly(in_short(answered(classroom, topic, about_half(worth)))),
        "empty": in_short(classroom.released(topic)),
    }
    assert classroom.scores(topic, handed_in) == {"solved": (10, 10), "half": (5, 10), "empty": (0, 10)}


@pytest.mark.weekly
@pytest.mark.parametrize("topic", topics())
def test_nbgrader_grades_the_whole_notebook(topic: str, classroom: Classroom) -> None:
    worth = points(classroom.released(topic))
    half, full = about_half(worth), sum(worth.values())
    handed_in = {
        "solved": answered(classroom, topic, set(worth)),
        "half": answered(classroom, topic, half),
        "empty": classroom.released(topic),
    }
    wanted = {"solved": (full, full), "half": (sum(worth[name] for name in half), full), "empty": (0, full)}
    assert classroom.scores(topic, handed_in) == wanted
