"""The exercises' checks: each accepts the solution in its notebook's source, and rejects likely wrong ones.

To add a check's wrong answers, give them to WRONG, each with a part of what the learner should then be told.
"""

import ast
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jupytext
import pytest
import torch

from rvq_tutorial import check

SOURCES = Path(__file__).parent.parent / "notebooks" / "sources"

# Exercise → wrong answers, each with a regular expression for what its learner is told.
WRONG: dict[str, list[tuple[Any, str]]] = {}

# --- 02 · How does a lookup learn? -----------------------------------------------------------------

WRONG["nearest_code"] = [
    (lambda x, codebook: torch.cdist(x, codebook).argmax(1), "farthest"),
    (lambda x, codebook: torch.cdist(x, codebook).argmin(0), "over the codewords"),
    (lambda x, codebook: (x @ codebook.T).argmax(1), "large norm"),
    (lambda x, codebook: (codebook.square().sum(1) - x @ codebook.T).argmin(1), "weigh too much"),
    (lambda x, codebook: torch.cdist(x, codebook).amin(1), "whole numbers"),
    (lambda x, codebook: (x @ codebook).argmin(1), "raises RuntimeError .* for x of shape"),
]

# --- Every exercise of every notebook --------------------------------------------------------------


class Exercise(NamedTuple):
    """A call `check.name(answer)` that stands in a notebook's source."""

    topic: str
    name: str
    answer: str  # an expression


def _code_cells(topic: str) -> list[Any]:
    notebook = jupytext.read(SOURCES / f"{topic}.py")
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _exercises() -> list[Exercise]:
    calls = re.compile(r"^check\.(\w+)\((.*)\)$", re.MULTILINE)
    topics = sorted(path.stem for path in SOURCES.glob("*.py"))
    return [Exercise(t, *call) for t in topics for cell in _code_cells(t) for call in calls.findall(cell.source)]


@functools.cache
def _solved_names(topic: str) -> dict[str, Any]:
    """What a notebook's imports, functions, classes and solved exercises define; nothing else of it is run."""
    names: dict[str, Any] = {}
    for cell in _code_cells(topic):
        tree = ast.parse(cell.source)
        if "exercise" not in cell.metadata.get("tags", []):
            kept = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
            tree.body = [node for node in tree.body if isinstance(node, kept)]
        exec(compile(tree, topic, "exec"), names)
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
def test_a_check_has_three_wrong_answers_to_reject(exercise: Exercise) -> None:
    assert len(WRONG.get(exercise.name, [])) >= 3


@each_wrong_answer
def test_a_check_says_what_is_wrong(name: str, answer: Any, words: str, capsys: pytest.CaptureFixture) -> None:
    getattr(check, name)(answer)
    said = capsys.readouterr().out
    assert re.fullmatch(r"✗ .*\n", said) and re.search(words, said), said


# --- What all checks share -------------------------------------------------------------------------


@check.exercise
def _double(answer: Callable) -> str:
    """A check as small as can be: x → 2 x."""
    check.compare(answer, lambda x: 2 * x, {"That is the square.": lambda x: x**2}, x=torch.tensor([3.0, 1.0]))
    return "doubled"


def _in_place(x: torch.Tensor) -> torch.Tensor:
    return x.mul_(2)


def _raising(x: torch.Tensor) -> torch.Tensor:
    raise ValueError("first line\nsecond line")


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda x: x + x, "✓ doubled"),
        (None, "○ Not solved yet."),
        (..., "○ Not solved yet."),
        (lambda x: None, "○ Not solved yet: your answer returns None."),
        (lambda x: x**2, "✗ That is the square. Seen for x of shape (2,)."),
        (lambda x: 3 * x, "✗ your answer: the result should be 6 at [0], and is 9 for x of shape (2,)."),
        (lambda x: x[:1], "✗ your answer: the result should have shape (2,), and has (1,) for x of shape (2,)."),
        (
            lambda x: "six",
            "✗ your answer: the result should be a tensor or a number, and is 'six' for x of shape (2,).",
        ),
        (_in_place, "✗ _in_place changes x in place for x of shape (2,): leave it as it was."),
        (_raising, "✗ _raising raises ValueError (first line) for x of shape (2,)."),
        (6, "✗ your answer raises TypeError ('int' object is not callable) for x of shape (2,)."),
    ],
)
def test_a_check_prints_one_line_and_never_raises(answer: Any, line: str, capsys: pytest.CaptureFixture) -> None:
    _double(answer)
    assert capsys.readouterr().out == f"{line}\n"


def test_a_check_that_fails_itself_still_prints_one_line(capsys: pytest.CaptureFixture) -> None:
    check.exercise(lambda answer: answer.missing)(6)
    assert capsys.readouterr().out.startswith("✗ This answer can't be used: AttributeError")


def test_a_check_leaves_the_random_numbers_alone(capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    _double(lambda x: 2 * x + 0 * torch.rand(1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("result", "wanted", "words"),
    [
        ((1, 2.0), (1, 2.0), "^$"),
        ([torch.ones(2), 3], (torch.ones(2), 3), "^$"),
        ((1, 2.5), (1, 2.0), "part 2, should be 2, and is 2.5"),
        (1, (1, 2), "should be 2 things, in order, and is 1"),
        (torch.ones(3), torch.ones(3).long(), "whole numbers, and holds torch.float32"),
        (float("nan"), 0.0, "should be 0, and is nan"),
    ],
)
def test_a_difference_is_put_into_words(result: Any, wanted: Any, words: str) -> None:
    assert re.search(words, check.difference(result, wanted))
