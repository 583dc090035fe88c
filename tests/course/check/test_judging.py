"""What all checks share: one line for any answer, and nothing left changed."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rvq_tutorial.course.check import solved
from rvq_tutorial.course.check.judging import compare, difference, exercise


@exercise
def _double(answer: Callable) -> str:
    """A check as small as can be: x → 2 x."""
    compare(answer, lambda x: 2 * x, dict(square=lambda x: x**2), x=torch.tensor([3.0, 1.0]))
    return "doubled"


def _in_place(x: Tensor) -> Tensor:
    return x.mul_(2)


def _raising(x: Tensor) -> Tensor:
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
    exercise(lambda answer: answer.missing)(6)
    assert capsys.readouterr().out.startswith("✗ This answer can't be used: AttributeError")


def test_grading_a_right_answer_says_nothing_and_remembers_nothing(capsys: pytest.CaptureFixture) -> None:
    _double.grade(lambda x: 2 * x)
    assert capsys.readouterr().out == ""
    assert solved.remembered() == set()


@pytest.mark.parametrize(
    ("answer", "mistake", "line"),
    [
        (..., "not_solved_yet", "○ Not solved yet."),
        (lambda x: None, "not_solved_since", "○ Not solved yet: your answer returns None."),
        (lambda x: x**2, "square", "✗ That is the square. Seen for x of shape (2,)."),
        (_raising, "raises", "✗ _raising raises ValueError (first line) for x of shape (2,)."),
    ],
)
def test_grading_any_other_answer_raises_the_mistakes_name_and_what_the_check_prints(
    answer: Any, mistake: str, line: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(AssertionError, match=f"^{re.escape(f'{mistake}: {line}')}$") as raised:
        _double.grade(answer)
    assert raised.value.mistake == mistake
    _double(answer)
    assert capsys.readouterr().out == f"{line}\n"


def test_a_judge_that_fails_itself_raises_too() -> None:
    with pytest.raises(AssertionError, match=r"^unusable: ✗ This answer can't be used: AttributeError"):
        exercise(lambda answer: answer.missing).grade(6)


def test_a_check_leaves_the_random_numbers_alone(capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    _double(lambda x: 2 * x + 0 * torch.rand(1))
    assert torch.equal(torch.rand(3), expected)


def test_a_check_tries_the_same_inputs_every_time(capsys: pytest.CaptureFixture) -> None:
    @exercise
    def draw(answer: Callable) -> str:
        return f"{torch.rand(1).item()}"

    draw(abs), draw(abs)
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


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
    assert re.search(words, difference(result, wanted))
