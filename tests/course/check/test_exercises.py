"""The exercises' checks: each accepts the solution in its notebook's source, and rejects likely wrong ones.

To add a check's wrong answers, give them to WRONG in the module `wrong_…` of its notebook, each with a part of what the
learner should then be told.
"""

import ast
import contextlib
import functools
import importlib
import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

import jupytext
import pytest
from languages import ENGLISH, LANGUAGES

from rvq_tutorial.course import check, use

SOURCES = Path(__file__).parents[3] / "notebooks" / "sources"
DEFINITIONS = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
MODULES = [importlib.import_module(path.stem) for path in sorted(Path(__file__).parent.glob("wrong_*.py"))]
WRONG = {name: cases for module in MODULES for name, cases in module.WRONG.items()}


class Exercise(NamedTuple):
    """A call `check.name(answer)` that stands in a notebook's source."""

    topic: str
    name: str
    answer: str  # an expression


def _code_cells(topic: str) -> list[Any]:
    notebook = jupytext.read(SOURCES / f"{topic}.py")
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _exercises() -> list[Exercise]:
    calls = re.compile(r"^check\.(\w+)\((.+)\)$", re.MULTILINE)
    topics = sorted(path.stem for path in SOURCES.glob("*.py"))
    return [Exercise(t, *call) for t in topics for cell in _code_cells(t) for call in calls.findall(cell.source)]


@functools.cache
def _solved_names(topic: str) -> dict[str, Any]:
    """What a notebook's imports, functions, classes and solved exercises define; nothing else of it is run."""
    names: dict[str, Any] = {}
    for cell in _code_cells(topic):
        body = ast.parse(cell.source).body
        if "exercise" not in cell.metadata.get("tags", []):
            body = [node for node in body if isinstance(node, DEFINITIONS)]
        for node in body:
            with contextlib.suppress(NameError):  # a definition that needs the notebook's data; no solution may
                exec(compile(ast.Module([node], []), topic, "exec"), names)
    return names


def solution(exercise: Exercise) -> Any:
    """The answer to an exercise that its notebook's source holds."""
    return eval(exercise.answer, _solved_names(exercise.topic))


EXERCISES = _exercises()
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
each_wrong_answer = pytest.mark.parametrize(
    ("name", "answer", "words"),
    [pytest.param(name, *case, id=f"{name}-{i}") for name, cases in WRONG.items() for i, case in enumerate(cases)],
)


@each_exercise
def test_a_check_accepts_the_solution(exercise: Exercise, capsys: pytest.CaptureFixture) -> None:
    getattr(check, exercise.name)(solution(exercise))
    assert re.fullmatch(r"✓ .*\n", capsys.readouterr().out)


@each_exercise
def test_a_check_waits_for_a_stub(exercise: Exercise, capsys: pytest.CaptureFixture) -> None:
    stub = (lambda *_: None) if callable(solution(exercise)) else None
    getattr(check, exercise.name)(stub)
    assert re.fullmatch(r"○ .*\n", capsys.readouterr().out)


@each_exercise
def test_a_check_has_eight_wrong_answers_to_reject(exercise: Exercise) -> None:
    assert len(WRONG.get(exercise.name, [])) >= 8


def test_the_checks_stand_in_the_order_of_their_notebooks() -> None:
    topics = itertools.groupby(EXERCISES, lambda exercise: exercise.topic)
    in_notebooks = [list(dict.fromkeys(exercise.name for exercise in group)) for _, group in topics]
    assert in_notebooks == [list(row) for row in check.progress().notebooks.values()]


@each_wrong_answer
def test_a_check_says_what_is_wrong(name: str, answer: Any, words: str, capsys: pytest.CaptureFixture) -> None:
    getattr(check, name)(answer)
    said = capsys.readouterr().out
    assert re.fullmatch(r"✗ .*\n", said) and re.search(words, said), said


@pytest.mark.parametrize("language", LANGUAGES[1:])
@each_exercise
def test_a_check_speaks_the_languages_of_the_notebooks(
    exercise: Exercise, language: str, capsys: pytest.CaptureFixture
) -> None:
    """Of a right answer and of two wrong ones."""

    def said(answer: Any) -> str:
        getattr(check, exercise.name)(answer)
        return capsys.readouterr().out

    wrong = [answer for answer, _ in WRONG[exercise.name]][:2]
    english = [said(answer) for answer in (solution(exercise), *wrong)]
    use(language)
    try:
        other = [said(answer) for answer in (solution(exercise), *wrong)]
    finally:
        use(ENGLISH)
    assert [line[0] for line in other] == ["✓", "✗", "✗"] == [line[0] for line in english]
    assert not set(other) & set(english)
